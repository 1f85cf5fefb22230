"""Reading plans: what is meant by a text, and how one that means nothing is refused."""

import json

import msgspec
import pytest

from tinkex_proxy.sandbox.faults import BadFault, Error, Expire, Latency, Lost, Paused, Reset, Slow
from tinkex_proxy.sandbox.plans import Plan, read_fault, read_plan


def test_a_plan_survives_being_written_and_read() -> None:
    plan = Plan(
        seed=7,
        faults=(
            Error(status=429, retry_after_s=2.5, path="submits", rate=0.05),
            Reset(when="midway", from_s=10, for_s=5, every_s=60),
            Paused(state="paused_rate_limit", reason="too many tokens"),
        ),
    )
    assert read_plan(msgspec.json.encode(plan)) == plan


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("expire", Expire()),
        ("error:status=502,rate=0.05,path=polls", Error(status=502, rate=0.05, path="polls")),
        ("latency:delay_s=0.1,jitter_s=1", Latency(delay_s=0.1, jitter_s=1)),
        ("reset:when=after,count=3", Reset(when="after", count=3)),
        ("reset:from_s=10,for_s=5,every_s=60", Reset(from_s=10, for_s=5, every_s=60)),
        ("lost:hold_s=9", Lost(hold_s=9)),
        ("slow:bytes_per_s=100", Slow(bytes_per_s=100)),
        ("paused:reason=out of chips", Paused(reason="out of chips")),
    ],
)
def test_a_command_line_says_the_same_as_json(text: str, fault: object) -> None:
    assert read_fault(text) == fault


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ({"fault": []}, "unknown field `fault`"),
        ({"faults": 5}, r"Expected `array`, got `int` - at `\$.faults`"),
        ({"faults": [5]}, r"got `int` - at `\$.faults\[0\]`"),
        ({"faults": [{}]}, r"faults\[0\]: kind is None; it is one of latency"),
        (
            {"faults": [{"kind": "reset"}, {"kind": "reset", "status": 5}]},
            r"faults\[1\]: reset has",
        ),
        ({"faults": [{"kind": "error", "rate": 2}]}, r"rate is 2.0.* at `\$.faults\[0\]`"),
        ({"faults": [{"kind": "error", "rate": "0.5"}]}, r"Expected `float`, got `str`"),
    ],
)
def test_a_bad_plan_is_refused_by_place_and_remedy(body: object, said: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(BadFault, match=said):
        read_plan(text.encode())
