import tracemalloc

import msgspec
import pytest

from tinkex_proxy.api.guard import Guard


async def inner(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def ask(
    headers: list[tuple[str, str]],
    *,
    bind_host: str = "127.0.0.1",
    allowed: list[str] | None = None,
    method: str = "GET",
    path: str = "/breakers",
    guard: Guard | None = None,
) -> tuple[int, dict[str, object]]:
    sent: list[dict[str, object]] = []

    async def send(message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    if guard is None:
        guard = Guard(inner, bind_host=bind_host, allowed_hosts=allowed or [])
    await guard(scope, None, send)
    return sent[0]["status"], msgspec.json.decode(sent[1]["body"])


OURS = [
    "localhost",
    "localhost:8465",
    "LOCALHOST:8465",
    "localhost.:8465",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.9.8.7:8465",
    "[::1]",
    "[::1]:8465",
]
FOREIGN = [
    "evil.example",
    "evil.example:8465",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "2130706433",
    "0x7f.1",
    "10.0.0.1:8465",
    "[2001:db8::1]:8465",
    "localhost:8465:1",
    "",
]


@pytest.mark.parametrize("host", OURS)
async def test_our_own_names_are_answered(host: str) -> None:
    assert (await ask([("host", host)]))[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_foreign_name_is_refused(host: str) -> None:
    """DNS rebinding: the page's own host name reaches us."""
    status, problem = await ask([("host", host)])
    assert (status, problem["code"]) == (421, "foreign_host")


async def test_no_host_or_two_are_refused() -> None:
    assert (await ask([]))[0] == 421
    assert (await ask([("host", "localhost"), ("host", "localhost")]))[0] == 421


async def test_configured_names_are_answered() -> None:
    assert (await ask([("host", "proxy:8465")]))[0] == 421
    assert (await ask([("host", "proxy:8465")], allowed=["Proxy"]))[0] == 200


async def test_beyond_loopback_addresses_are_ours_but_foreign_names_are_not() -> None:
    """A kubelet's probe names the pod's IP; an address cannot be rebound."""
    assert (await ask([("host", "10.1.2.3:8465")], bind_host="0.0.0.0"))[0] == 200
    assert (await ask([("host", "evil.example")], bind_host="0.0.0.0"))[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", ""])
async def test_another_origins_page_is_refused(origin: str) -> None:
    """Another port on localhost is another origin."""
    status, problem = await ask([("host", "localhost:8465"), ("origin", origin)])
    assert (status, problem["code"]) == (403, "foreign_origin")


async def test_our_own_page_is_answered() -> None:
    own = [("host", "localhost:8465"), ("origin", "http://localhost:8465")]
    assert (await ask(own))[0] == 200


async def test_a_cross_site_request_without_origin_is_refused() -> None:
    """An <img> of a foreign page sends no Origin, but browsers say where it comes from."""
    headers = [("host", "localhost"), ("sec-fetch-site", "cross-site")]
    assert (await ask(headers))[0] == 403


async def test_a_link_that_a_person_follows_leads_to_our_page() -> None:
    headers = [("host", "localhost"), ("sec-fetch-site", "cross-site")]
    assert (await ask([*headers, ("sec-fetch-dest", "document")]))[0] == 200
    assert (await ask([*headers, ("sec-fetch-dest", "iframe")]))[0] == 403
    posted = [*headers, ("sec-fetch-dest", "document")]
    assert (await ask(posted, method="POST"))[0] == 403


OWN_PAGE = [
    ("host", "localhost:8465"),
    ("origin", "http://localhost:8465"),
    ("sec-fetch-site", "same-origin"),
]
IN_A_BROWSER = [
    OWN_PAGE,
    [("host", "localhost"), ("sec-fetch-site", "same-origin")],
    [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-dest", "document")],
    [("host", "localhost"), ("origin", "http://localhost")],
]


@pytest.mark.parametrize("headers", IN_A_BROWSER)
@pytest.mark.parametrize("path", ["/breakers/b/reset", "/drain", "/config/reload", "/new"])
async def test_a_browser_has_to_say_that_it_means_to_change_something(
    headers: list[tuple[str, str]], path: str
) -> None:
    """A header that no form can send, and no script of another origin without asking first."""
    status, problem = await ask(headers, method="POST", path=path)
    assert (status, problem["code"]) == (403, "foreign_origin")
    assert "x-tinkex-action" in str(problem["detail"])
    meant = [*headers, ("x-tinkex-action", "1")]
    assert (await ask(meant, method="POST", path=path))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_program_need_not(method: str) -> None:
    """`curl -X POST` sends nothing that only browsers send."""
    assert (await ask([("host", "localhost")], method=method, path="/breakers/b/reset"))[0] == 200


async def test_looking_and_callers_own_calls_need_it_from_nobody() -> None:
    for method in ("GET", "HEAD"):
        assert (await ask(OWN_PAGE, method=method))[0] == 200
    for path in ("/v1/optim_step", "/api/v1/optim_step"):
        assert (await ask(OWN_PAGE, method="POST", path=path))[0] == 200


async def test_the_header_opens_nothing_to_another_origin() -> None:
    foreign = [("host", "localhost"), ("origin", "http://evil.example"), ("x-tinkex-action", "1")]
    assert (await ask(foreign, method="POST"))[0] == 403


async def test_what_is_not_http_passes() -> None:
    seen: list[object] = []

    async def inner(scope, receive, send) -> None:
        seen.append(scope["type"])

    await Guard(inner, bind_host="127.0.0.1", allowed_hosts=[])({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


HOST = ("host", "proxy.local:8465")


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([("host", "evil.example")], 421),
        ([HOST], 421),
        ([("origin", "http://evil.example")], 403),
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-dest", "empty")], 403),
        ([("accept", "a"), ("accept", "b")], 200),
    ],
)
async def test_a_name_that_is_known_opens_nothing_else(more, status: int) -> None:
    guard = Guard(inner, bind_host="127.0.0.1", allowed_hosts=["proxy.local"])
    assert (await ask([HOST], guard=guard))[0] == 200
    assert (await ask([HOST, *more], method="POST", guard=guard))[0] == status
    guard.reconfigure([])
    assert (await ask([HOST], guard=guard))[0] == 421


async def test_of_long_forms_of_our_names_nothing_is_kept() -> None:
    """A name may have any port, written with any number of noughts."""
    guard = Guard(inner, bind_host="127.0.0.1", allowed_hosts=[])
    tracemalloc.start()
    try:
        for number in range(32):
            assert (await ask([("host", f"localhost:{number:0100000}")], guard=guard))[0] == 200
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
