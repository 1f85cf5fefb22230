import pytest

from tests.api.driving import datum, train
from tinkex_proxy.api.dashboard import MAX_LANES
from tinkex_proxy.cli.told import read
from tinkex_proxy.core.timeline import Part

FIELDS = {
    *("run", "next", "since", "now", "began_at", "step_s", "into_s", "kept_s"),
    *("version", "ready", "obstacle", "verdict", "recent"),
    *("breakers", "moves", "lanes", "lanes_left_out", "keys", "admission"),
    *("slots", "losses", "troubles"),
}


async def asked(proxy, after: str | None = None) -> dict[str, object]:
    params = {} if after is None else {"after": after}
    answer = await proxy.client.get("/dashboard", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def test_a_proxy_at_rest_has_nothing_to_show(proxy) -> None:
    told = await asked(proxy)
    assert set(told) == FIELDS
    assert (told["losses"], told["lanes"], told["troubles"]) == ([], [], [])
    assert all(slot["ok"] == slot["failed"] == 0 for slot in told["slots"])
    assert told["verdict"]["now"]["headline"] == "Nothing to judge: no call has come."
    assert told["recent"]["p99_ms"] is None


async def test_an_upstream_that_was_never_reached_is_seen_as_that(start) -> None:
    proxy = await start("http://127.0.0.1:9")
    told = await asked(proxy)
    while not told["troubles"]:
        told = await asked(proxy)
    assert told["ready"] is False
    assert told["troubles"][0]["kind"] == "upstream"
    assert told["verdict"]["now"]["side"] == "upstream"


async def test_training_shows_in_all_its_parts(proxy) -> None:
    model_id = await proxy.create()
    for _ in range(3):
        assert (await train(proxy, model_id, [datum(1), datum(2)])).status_code == 200
    told = await asked(proxy)
    assert sum(slot["ok"] for slot in told["slots"]) == 4
    assert sum(slot["batches"] for slot in told["slots"]) == 3
    assert all(slot["p50"] <= slot["p99"] for slot in told["slots"] if slot["ok"])
    (curve,) = told["losses"]
    assert (curve["model_id"], curve["calls"], len(curve["points"])) == (model_id, 3, 3)
    (lane,) = told["lanes"]
    assert (lane["model_id"], lane["linger_ms"], lane["calls"]) == (model_id, 5.0, 3)
    recent = told["recent"]
    assert (recent["ok"], recent["failed"], recent["datums"]) == (4, 0, 6)
    assert recent["sizes"] == [["1", 3]]
    assert told["verdict"]["now"]["headline"] == "All is well."
    assert told["keys"][0]["queue_states"]
    assert told["ready"] is True


async def test_the_loss_is_that_of_a_datum(proxy) -> None:
    model_id = await proxy.create()
    one = (await train(proxy, model_id, [datum(1)])).json()["loss"]
    two = (await train(proxy, model_id, [datum(1), datum(1)])).json()["loss"]
    assert two == pytest.approx(2 * one)
    points = (await asked(proxy))["losses"][0]["points"]
    assert [point[2] for point in points] == pytest.approx([one, one], rel=1e-5)


async def test_it_tells_what_the_time_of_calls_was_spent_on(proxy) -> None:
    """In the figures of the last minute, and slot by slot for the chart."""
    model_id = await proxy.create()  # a call too
    for _ in range(2):
        await train(proxy, model_id, [datum(1)])
    told = await asked(proxy)
    assert told["recent"]["timed"] == 3
    assert told["recent"]["spent"]["compute"] > 0
    assert set(told["recent"]["spent"]) <= {part.value for part in Part}
    assert sum(slot.get("timed", 0) for slot in told["slots"]) == 3
    spent = sum(slot.get("spent", {}).get("compute", 0) for slot in told["slots"])
    assert spent == pytest.approx(told["recent"]["spent"]["compute"], abs=0.001)


async def test_a_forward_is_no_training(proxy) -> None:
    model_id = await proxy.create()
    body = {"model_id": model_id, "data": [datum(1)]}
    assert (await proxy.post("/v1/forward", body)).status_code == 200
    assert (await asked(proxy))["losses"] == []


async def test_whoever_asks_again_gets_the_news(proxy) -> None:
    """And what had changed in the slot that was not over when it asked."""
    model_id = await proxy.create()
    first = await asked(proxy)
    await train(proxy, model_id, [datum(1)])
    second = await asked(proxy, first["next"])
    number = int(first["next"].rpartition("-")[2])
    assert second["since"] == number
    assert all(slot["n"] >= number for slot in second["slots"])
    assert second["losses"][0]["whole"] is (number == 0)
    assert second["run"] == first["run"]


@pytest.mark.parametrize("after", ["", "x", "0000-5", "-", "{run}-x", "{run}-999999999999999999"])
async def test_whoever_names_another_run_gets_everything(proxy, after: str) -> None:
    """A number beyond the present one is of no run of ours either, but does no harm."""
    model_id = await proxy.create()
    await train(proxy, model_id, [datum(1)])
    first = await asked(proxy)
    told = await asked(proxy, after.format(run=first["run"]))
    assert told["since"] <= int(told["next"].rpartition("-")[2])
    if not after.endswith("9"):
        assert told["since"] == 0


async def test_what_goes_wrong_is_told_with_what_it_means(proxy) -> None:
    answer = await proxy.post("/v1/optim_step", {"model_id": "nobody"})
    assert answer.status_code == 404
    told = await asked(proxy)
    (row,) = told["troubles"]
    assert (row["kind"], row["what"], row["said"], row["title"], row["count"]) == (
        *("call", "optim_step", "model_not_found"),
        *("No such model", 1),
    )
    assert told["recent"]["failed"] == 1
    assert told["verdict"]["now"]["side"] == "caller"


async def test_an_upstream_that_is_gone_is_its_own_doing(start) -> None:
    proxy = await start(
        "http://127.0.0.1:9", circuit_breaker={"failure_threshold": 1, "timeout_ms": 600_000}
    )
    for _ in range(6):
        assert (await proxy.post("/v1/models", {"base_model": "x"})).status_code in {502, 503}
    told = await asked(proxy)
    (breaker,) = told["breakers"]
    (moved,) = told["moves"]
    assert (breaker["state"], moved["before"], moved["after"]) == ("open", "closed", "open")
    now = told["verdict"]["now"]
    assert (now["side"], now["grade"]) == ("upstream", "bad")
    assert any("circuit breaker is open" in finding["says"] for finding in now["findings"])
    # what is so only now is not said of the quarter of an hour
    lately = told["verdict"]["lately"]
    assert any("opened 1 time" in finding["says"] for finding in lately["findings"])


async def test_what_an_operator_has_done_is_judged_as_such(proxy) -> None:
    await proxy.create()
    (breaker,) = (await asked(proxy))["breakers"]
    assert (await proxy.post(f"/breakers/{breaker['id']}/open")).status_code == 200
    told = await asked(proxy)
    assert told["verdict"]["now"]["side"] == "proxy"
    assert told["breakers"][0]["forced"]["to"] == "open"


async def test_an_upstream_that_asks_to_slow_down_is_seen_to_do_so(proxy) -> None:
    await proxy.create()
    account = proxy.proxy.services.accounts.of_default()
    account.upstream.pace.heard(proxy.proxy.services.clock.now(), 429, wait_s=600)
    told = await asked(proxy)
    says = [finding["says"] for finding in told["verdict"]["now"]["findings"]]
    assert any(text.startswith("It wants nothing submitted for") for text in says)
    assert told["keys"][0]["held_back_s"] > 0


async def test_more_lanes_than_anybody_reads_are_left_out(proxy) -> None:
    await proxy.create()
    account = proxy.proxy.services.accounts.of_default()
    facts = {"base_model": "sandbox/tiny-1"}
    for number in range(MAX_LANES + 4):
        account.adopt(facts, f"more-{number:03}", "nowhere", of_sdk=True)
    gone = next(iter(account.models.values()))
    gone.end("for the test")
    told = await asked(proxy)
    assert (len(told["lanes"]), told["lanes_left_out"]) == (MAX_LANES, 4)
    assert gone.model_id not in {lane["model_id"] for lane in told["lanes"]}


async def test_a_foreign_page_reads_none_of_it(proxy) -> None:
    foreign = {"origin": "http://evil.example"}
    assert (await proxy.client.get("/dashboard", headers=foreign)).status_code == 403


async def test_it_is_what_the_commands_read(proxy) -> None:
    """`top` has forms of its own for what it shows, which cannot drift from what is told."""
    model_id = await proxy.create()
    await train(proxy, model_id, [datum(1)])
    assert (await proxy.post("/v1/optim_step", {"model_id": "nobody"})).status_code == 404
    told = read((await proxy.client.get("/dashboard")).content)
    assert [lane.model_id for lane in told.lanes] == [model_id]
    assert told.losses[0].points[0][2] > 0
    assert told.troubles[0].title == "No such model"
    assert told.breakers[0].state == "closed"
