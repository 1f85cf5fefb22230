import pytest

from tests.cli.telling import breaker, lane, telling, verdict
from tinkex_proxy.cli.top.picture import picture
from tinkex_proxy.cli.top.view import View

FAILING = verdict("upstream", "bad", "The upstream is failing.", "It is away. " * 12, "Yes.", "No.")
BUSY = telling(
    ready=False,
    obstacle="draining",
    verdict={"now": FAILING, "lately": FAILING},
    breakers=[
        breaker("here-none"),
        breaker("here-k1", state="open", consecutive_failures=5, retry_after_s=12.0),
        breaker("here-k2", state="half_open"),
        breaker("here-k3"),
        breaker("here-k4"),
    ],
    lanes=[
        lane("session_1234567890:train:1", depth=3, oldest_wait_s=12.25, on_wire_seq=7),
        lane("m2", awaiting_results=2, calls=10, requests=4, queue_state="paused_capacity"),
        *(lane(f"x{number:02}", queue_state="active") for number in range(30)),
    ],
    lanes_left_out=5,
    losses=[
        {"model_id": "m2", "points": [[0, 1.0, 3.5], [1, 2.0, 2.125]]},
        {"model_id": "x00", "points": []},
    ],
    troubles=[
        {
            "kind": "call",
            "what": "optim_step",
            "said": "circuit_open",
            "count": 12,
            "title": "Circuit breaker open",
            "last_at": 1_699_999_990.0,
        },
        {
            "kind": "upstream",
            "what": "poll",
            "said": "503",
            "count": 2,
            "title": None,
            "last_at": 1_699_999_995.0,
        },
    ],
    moves=[
        {
            "at": 1_699_999_999.0,
            "breaker": "here-k1",
            "cause": "5 failures in a row",
            "before": "closed",
            "after": "open",
        },
        {"at": 1.0, "breaker": "old", "before": None, "after": None, "cause": ""},
    ],
)


def drawn(told, view=None, width: int = 80, height: int = 24, silence: str = "") -> list[str]:
    lines = picture(told, view or View(), width=width, height=height, silence=silence)
    return ["".join(piece.text for piece in line) for line in lines]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [3, 10, 24, 60])
@pytest.mark.parametrize("told", [telling(), BUSY], ids=["quiet", "busy"])
def test_it_fits_whatever_the_size(told, width: int, height: int) -> None:
    lines = drawn(told, width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_all_that_matters_is_on_80_by_24() -> None:
    text = "\n".join(lines := drawn(BUSY))
    assert lines[0].startswith(" tinkex-proxy -> http://127.0.0.1:8466 ")
    assert "  NOT READY  " in lines[0]
    assert lines[1] == "  draining"
    assert lines[2] == "The upstream is failing. [upstream: bad]"
    assert "P50 12 ms  P95 1.2 s  P99 -" in text
    assert "calls 10.0/s  failed 0  in flight 4" in text
    assert "BREAKER" in text
    assert "LANE, by name" in text
    assert "WHEN     TIMES  WHAT WENT WRONG" in text
    assert lines[-1].startswith(" q quit  p pause")


def test_breakers_that_are_not_closed_come_first() -> None:
    lines = drawn(BUSY)
    at = next(number for number, line in enumerate(lines) if line.startswith("BREAKER"))
    assert lines[at + 1].split() == ["here-k1", "open", "5/5", "12", "s", "1,234", "2", "1"]
    assert lines[at + 2].startswith("here-k2")
    assert "half open" in lines[at + 2]
    assert lines[at + 5] == "  1 more"


def test_a_lane_shows_what_it_does_and_what_is_left_out_is_counted() -> None:
    lines = drawn(BUSY)
    row = next(line for line in lines if line.startswith("m2"))
    assert row.split() == ["m2", "0", "-", "-", "2", "10/4", "2.125", "capacity"]
    shortened = next(line for line in lines if line.startswith("session_"))
    assert shortened.split()[0].endswith(":train:1")
    assert shortened.split()[1:4] == ["3", "12", "s"]
    shown = sum(line.startswith(("m2", "session_", "x")) for line in lines)
    assert f"  {32 - shown + 5} more" in lines


def test_what_went_wrong_is_told_the_latest_first() -> None:
    lines = drawn(BUSY)
    at = next(number for number, line in enumerate(lines) if line.startswith("WHEN"))
    texts = [line[9:] for line in lines[at + 1 : at + 4]]
    assert texts == [
        "    1  breaker: closed -> open: 5 failures in a row",
        "    2  upstream: poll: 503",
        "   12  call: optim step: Circuit breaker open",
    ]


def test_a_filter_holds_for_lanes_breakers_and_errors() -> None:
    text = "\n".join(drawn(BUSY, View(wanted="M2")))
    assert "no breaker matches" in text
    assert "session_" not in text
    assert "[filter: M2]" in text
    assert "no lane matches" in "\n".join(drawn(BUSY, View(wanted="zzz")))


def test_a_filter_that_is_being_typed_is_seen() -> None:
    assert drawn(BUSY, View(wanted="m", typing=True))[-1].startswith(" filter: m_ ")


def test_lanes_are_gone_through() -> None:
    assert not any(line.startswith("m2") for line in drawn(BUSY, View(first=1)))
    assert any(line.startswith("x29") for line in drawn(BUSY, View(first=500)))


def test_a_pause_an_order_and_a_silence_are_seen() -> None:
    lines = drawn(BUSY, View(paused=True, order="calls", turned=True), silence="no answer")
    assert "PAUSED  NO ANSWER  " in lines[0]
    assert lines[1] == "  no answer"
    assert any(line.startswith("LANE, by calls (tur") for line in lines)
    assert "p go on" in lines[-1]


def test_a_proxy_without_work_says_so() -> None:
    text = "\n".join(drawn(telling()))
    assert "no key is in use" in text
    assert "no model is being trained" in text
    assert "nothing, in the last 15 minutes" in text
    assert " ready  " in text


def test_a_wide_screen_has_room_for_what_matters_less() -> None:
    assert "calls/request 1.5" in "\n".join(drawn(BUSY, width=120))
    none = {"window_s": 60, "ok": 0, "failed": 2, "repeated": 0, "batches": 0}
    none |= {"p50_ms": None, "p95_ms": None, "p99_ms": None, "batched_calls": 0}
    assert "calls/request" not in "\n".join(drawn(telling(recent=none), width=120))
