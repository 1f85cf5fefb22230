import pytest

from tinkex_proxy.core.trip import Trip, TripSettings


def fed(settings: TripSettings, *, failed: int = 0, slow: int = 0, fine: int = 0) -> Trip:
    trip = Trip(settings)
    for _ in range(failed):
        trip.count(0, failed=True, slow=False)
    for _ in range(slow):
        trip.count(0, failed=False, slow=True)
    for _ in range(fine):
        trip.count(0, failed=False, slow=False)
    return trip


HALF = TripSettings(failure_rate=0.5, minimum_calls=10, window_s=60)


@pytest.mark.parametrize(
    ("failed", "fine", "trips"),
    [(5, 5, True), (4, 6, False), (9, 0, False), (10, 0, True), (0, 100, False)],
)
def test_a_share_of_failures_trips_once_there_are_enough_calls(failed, fine, trips) -> None:
    reason = fed(HALF, failed=failed, fine=fine).reason(0)
    assert (reason is not None) is trips
    if trips:
        assert reason == f"{failed} of {failed + fine} calls failed within 60 s"


def test_failures_leave_the_window() -> None:
    trip = fed(HALF, failed=10)
    assert trip.reason(50) is not None
    assert trip.reason(60) is None


def test_no_rate_unless_asked_for() -> None:
    """Only failures in a row trip then, and the window is not even kept."""
    trip = fed(TripSettings(failure_threshold=7), failed=1000)
    assert trip.reason(0) is None
    assert trip.counts(0).calls == 0
    assert trip.threshold == 7


def test_slow_calls_trip_where_it_is_said_what_is_slow() -> None:
    settings = TripSettings(slow_s=2.0, slow_rate=0.5, minimum_calls=4)
    trip = fed(settings, slow=2, fine=2)
    assert (trip.is_slow(1.99), trip.is_slow(2.0)) == (False, True)
    assert trip.reason(0) == "2 of 4 calls took 2 s or longer within 60 s"
    assert fed(settings, slow=2, fine=3).reason(0) is None
    assert fed(settings, failed=4).reason(0) is None
    assert not Trip(TripSettings()).is_slow(1e9)


def test_a_cleared_window_knows_nothing() -> None:
    trip = fed(HALF, failed=10)
    trip.clear()
    assert trip.reason(0) is None


def test_other_rules_look_at_what_the_window_holds() -> None:
    trip = fed(HALF, failed=4, fine=6)
    trip.reconfigure(TripSettings(failure_rate=0.4, minimum_calls=10, window_s=60))
    assert trip.reason(0) == "4 of 10 calls failed within 60 s"
    trip.reconfigure(TripSettings())
    trip.count(0, failed=True, slow=False)
    assert (trip.reason(0), trip.counts(0).calls) == (None, 10)


def test_a_window_of_another_length_begins_empty() -> None:
    trip = fed(HALF, failed=10)
    trip.reconfigure(TripSettings(failure_rate=0.5, minimum_calls=10, window_s=30))
    assert trip.counts(0).calls == 0


def test_what_is_usual_is_kept_unless_it_is_counted_from_another_number() -> None:
    """An adaptive threshold that has grown does not fall back for another window or rate."""
    adaptive = TripSettings(adaptive=True, failure_threshold=5)
    trip = Trip(adaptive)
    for n in range(2000):
        trip.count(n, failed=n % 8 == 0, slow=False)
    grown = trip.threshold
    assert grown > 5
    trip.reconfigure(TripSettings(adaptive=True, failure_threshold=5, failure_rate=0.9))
    assert trip.threshold == grown
    trip.reconfigure(TripSettings(adaptive=True, failure_threshold=20))
    assert trip.threshold == 20
    trip.closed(at_once=True)
    assert trip.threshold == 30
    trip.reconfigure(TripSettings(failure_threshold=20))
    assert trip.threshold == 20


def test_who_forgets_what_is_usual_learns_it_anew() -> None:
    trip = fed(TripSettings(adaptive=True), failed=30, fine=1)
    assert trip.threshold > 5
    trip.clear()
    assert trip.threshold > 5
    trip.forget()
    assert trip.threshold == 5
    trip.closed(at_once=True)
    assert trip.threshold == 7


def test_without_being_asked_to_the_threshold_follows_nothing() -> None:
    trip = fed(TripSettings(failure_threshold=5), failed=30, fine=1)
    trip.closed(at_once=True)
    assert trip.threshold == 5
