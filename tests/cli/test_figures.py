import pytest

from tinkex_proxy.cli.figures import count, duration, rate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0 ms"),
        (0.00234, "2.3 ms"),
        (0.0994, "99 ms"),
        (1.25, "1.2 s"),
        (42.4, "42 s"),
        (119, "119 s"),
        (150, "2.5 min"),
    ],
)
def test_lengths_of_time_have_three_figures(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_rates_and_counts() -> None:
    assert (rate(6, 60), rate(12_000, 60)) == ("0.1/s", "200/s")
    assert count(12345) == "12,345"
