import tracemalloc

import pytest

from tinkex_proxy.api.asgi import SDK_ROUTE
from tinkex_proxy.api.sdk_kinds import kind_of, operation_of
from tinkex_proxy.core.outcome import Operation


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/api/v1/forward_backward", Operation.SUBMIT),
        ("POST", "/api/v1/never_heard_of", Operation.SUBMIT),
        ("POST", "/api/v1/retrieve_future", Operation.POLL),
        ("POST", "/api/v1/retrieve_futures", Operation.POLL),
        ("POST", "/api/v1/session_heartbeat", Operation.HEARTBEAT),
        ("GET", "/api/v1/training_runs/a/b", Operation.QUERY),
        ("DELETE", "/api/v1/training_runs/a", Operation.QUERY),
    ],
)
def test_requests_are_judged_by_what_they_are(method, path, operation) -> None:
    assert operation_of(method, path) is operation


def test_of_long_paths_nothing_is_kept() -> None:
    """Whoever asks for one after another could else fill the memory."""
    tracemalloc.start()
    try:
        for number in range(64):
            assert kind_of("GET", f"/api/v1/{number}{'x' * 100_000}").route == SDK_ROUTE
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
