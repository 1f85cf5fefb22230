"""The page in a real browser: real traffic, an outage, buttons, and what a foreign page can do.

The upstream is the sandbox, because it fails when it is told to.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.browser import PHONE, Looker, looking
from tests.e2e.trainers import trainers
from tests.processes import Process, client_of, processes, until

# Longer than any test: nothing but a button closes the breaker.
FOR_GOOD_MS = 3_600_000
# What stands out of the page at its right; a label for screen readers alone is nowhere.
TOO_WIDE = """[...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter((one) => !one.closest("svg, .sr, .u-hz, thead"))
  .map((one) => one.outerHTML.slice(0, 80))"""
GONE = {"faults": [{"kind": "reset"}]}


@dataclass(frozen=True, slots=True)
class Place:
    """A proxy, and the sandbox behind it."""

    proxy: Process
    upstream: Process
    client: httpx.Client

    def fails(self, faults: dict[str, object]) -> None:
        answer = self.client.put(f"{self.upstream.url}/sandbox/faults", json=faults)
        assert answer.status_code == 200

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Every connection is reset; afterwards the breaker lets all through at once."""
        self.fails(GONE)
        try:
            yield
        finally:
            self.fails({"faults": []})
            self.client.post(f"/breakers/{self.breaker()['id']}/reset")

    def a_model(self) -> None:
        made = self.client.post("/v1/models", json={"base_model": "sandbox/tiny-1", "rank": 4})
        assert made.status_code == 200

    def breaker(self) -> dict[str, object]:
        (breaker,) = self.client.get("/breakers").json()["breakers"]
        return breaker


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    with processes() as start:
        upstream = start("sandbox", "--port", "0", "--tick-ms", "50")
        options = ["--upstream.base-url", upstream.url]
        options += ["--circuit-breaker.timeout-ms", str(FOR_GOOD_MS)]
        options += ["--journal.state-dir", str(tmp_path)]
        proxy = start("serve", "--port", "0", *options)
        with client_of(proxy.url) as client:
            yield Place(proxy, upstream, client)


@pytest.fixture
def looker(place: Place) -> Iterator[Looker]:
    with looking() as one:
        one.page.goto(f"{place.proxy.url}/")
        yield one
        own = f"{place.proxy.url}/"
        assert [url for url in one.asked if not url.startswith(own)] == []


def test_an_outage_is_seen_named_and_ended_by_a_click(place: Place, looker: Looker) -> None:
    """From the page alone: all is well, the upstream fails, its breaker is open, and is reset."""
    page = looker.page
    with trainers(place.proxy.url, 2) as training:
        looker.until("All is well.", at="#headline")
        looker.until("train:1", at="#lanes")
        looker.until("train:1", at="#charts")
        page.wait_for_selector("#charts canvas >> nth=5")

        place.fails(GONE)
        looker.until("The upstream is failing.", at="#headline")
        looker.until("circuit breaker is open after repeated failures", at="#sides")
        looker.until("open", at=".breaker .state")
        looker.until("closed → open", at="#events")
        looker.until("no answer", at="#events")
        assert "upstream is failing" in page.title()

        place.fails({"faults": []})
        assert place.breaker()["state"] == "open"
        steps = [one.steps for one in training]
        page.get_by_role("button", name="Reset").click()
        looker.until("Done: it is closed.", at=".breaker .said")
        looker.until("closed", at=".breaker .state")
        looker.until("The upstream stumbles; calls go on.", at="#headline")
        for one, before in zip(training, steps, strict=True):
            until(lambda one=one, before=before: place.breaker() and one.steps > before)
    assert looker.complaints == []


def test_every_button_does_what_it_says_by_keyboard_alone(place: Place, looker: Looker) -> None:
    """Reached with Tab, pressed with Enter, and what came of it is said in a live region."""
    place.a_model()
    page = looker.page
    page.wait_for_selector(".breaker")
    wanted = {
        "Open": "forced_open",
        "Hold closed": "closed",
        "Disable": "disabled",
        "Reset": "closed",
    }
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for name, state in wanted.items():
        for _ in range(40):
            if page.evaluate("document.activeElement.textContent") == name:
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        looker.until(f"Done: it is {state.replace('_', ' ')}.", at="[role=status]")
        assert place.breaker()["state"] == state
    assert "forced" not in place.breaker()


def test_a_forced_breaker_says_for_how_long(place: Place, looker: Looker) -> None:
    place.a_model()
    looker.page.get_by_role("combobox").select_option(label="for 10 min")
    looker.page.get_by_role("button", name="Open", exact=True).click()
    looker.until("Done: it is forced open.", at=".breaker .said")
    assert 590 < place.breaker()["forced"]["for_s"] <= 600
    looker.until("An operator holds 1 circuit breaker open", at="#sides")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_it_is_accessible_and_fits(place: Place, scheme: str, viewport: object) -> None:
    """By axe's rules (WCAG 2 AA, contrast included), with everything that the page can show."""
    options = {"color_scheme": scheme} | ({"viewport": viewport} if viewport else {})
    with trainers(place.proxy.url, 1), looking(**options) as one:
        one.page.goto(f"{place.proxy.url}/")
        one.until("train:0", at="#charts")
        with place.outage():
            one.until("The upstream is failing.", at="#headline")
            one.page.eval_on_selector_all(
                "details", "all => all.forEach((one) => (one.open = true))"
            )
            found = Axe().run(one.page)
            assert found.violations_count == 0, found.generate_report()
            # also when a phone is what a wide window has become
            one.page.set_viewport_size(PHONE)
            one.page.wait_for_function(f"{TOO_WIDE}.length === 0")


def test_the_theme_is_chosen_and_kept(looker: Looker) -> None:
    page = looker.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert page.evaluate(ground) == dark


def test_a_proxy_that_is_gone_is_told_of_and_waited_for(tmp_path) -> None:
    """The last figures stay; another run of the proxy begins anew."""
    options = ["--upstream.base-url", "http://127.0.0.1:9", "--journal.state-dir", str(tmp_path)]
    with processes() as start, looking() as one:
        first = start("serve", "--port", "0", *options)
        one.page.goto(f"{first.url}/")
        one.until("No call has ended.", at="#sides")
        first.stop()
        one.page.wait_for_selector("#lost", state="visible")
        one.until("No call has ended.", at="#sides")
        start("serve", "--port", first.url.rpartition(":")[2], *options)
        one.page.wait_for_selector("#lost", state="hidden")
        one.until("The proxy has started anew.", at="#said")


HOSTILE = """<!doctype html><title>foreign</title>
<form method="post" action="{url}"></form>
<iframe src="{home}"></iframe>
<script>
const results = [];
const tries = [
  {{}}, {{ mode: "no-cors" }}, {{ headers: {{ "X-Tinkex-Action": "1" }} }},
  {{ mode: "no-cors", body: new URLSearchParams("a=b") }},
  {{ keepalive: true, credentials: "include" }},
];
const all = tries.map((options) => fetch("{url}", {{ method: "POST", ...options }})
  .then((answer) => results.push(answer.type), () => results.push("refused")));
Promise.all(all).then(() => {{ document.title = results.join(" "); }});
</script>"""


@contextlib.contextmanager
def foreign(html: str) -> Iterator[str]:
    """A page of another origin."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_a_foreign_page_can_press_no_button(place: Place) -> None:
    """Neither by script, in any way that browsers know, nor by a form, nor by framing ours."""
    place.a_model()
    url = f"{place.proxy.url}/breakers/{place.breaker()['id']}/open"
    with foreign(HOSTILE.format(url=url, home=place.proxy.url)) as site, looking() as one:
        one.page.goto(site)
        one.page.wait_for_function("document.title.split(' ').length === 5")
        assert set(one.page.title().split()) <= {"opaque", "refused"}
        framed = [frame.content() for frame in one.page.frames if frame != one.page.main_frame]
        assert all("headline" not in content for content in framed)
        with one.page.expect_navigation():
            one.page.evaluate("document.forms[0].submit()")
        assert "foreign_origin" in one.page.content()
    breaker = place.breaker()
    assert (breaker["state"], breaker["transitions"], "forced" in breaker) == ("closed", 0, False)
