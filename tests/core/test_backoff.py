from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.backoff import Backoff

draws = st.floats(0, 1, exclude_max=True)


def test_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_s=0.5, cap_s=4.0)
    assert [backoff.delay_s(n, 1.0) for n in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]


@given(st.integers(0, 10_000), draws, st.floats(0, 100))
def test_never_below_the_floor_nor_above_floor_and_cap(
    attempt: int, draw: float, floor_s: float
) -> None:
    """What the upstream asks for is the least; jitter comes on top; no attempt number overflows."""
    delay = Backoff().delay_s(attempt, draw, floor_s=floor_s)
    assert floor_s <= delay <= floor_s + Backoff().cap_s
