import pytest

from tinkex_proxy.core.outcome import Fault, Operation, Outcome, of_fault, of_status

S, F, T, N = Outcome.SUCCESS, Outcome.FAILURE, Outcome.THROTTLED, Outcome.NEUTRAL
CALLS = [op for op in Operation if op is not Operation.PROBE]


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize(
    ("status", "outcome"),
    [(s, S) for s in (200, 202, 301, 400, 401, 403, 404, 409, 410, 413, 415, 422)]
    + [(s, T) for s in (402, 429)]
    + [(s, F) for s in (500, 502, 503, 504, 599)],
)
def test_status_table(operation: Operation, status: int, outcome: Outcome) -> None:
    """An answer proves life unless it is 5xx; 429 and 402 ask for patience and open nothing."""
    assert of_status(operation, status) is outcome


def test_408_is_not_ready_on_polls_and_a_timeout_elsewhere() -> None:
    assert of_status(Operation.POLL, 408) is S
    assert of_status(Operation.SUBMIT, 408) is F


@pytest.mark.parametrize("status", [200, 404, 415, 429, 500])
def test_probe_never_counts(status: int) -> None:
    """A probe asks what an upstream takes; a 500 is one of the answers."""
    assert of_status(Operation.PROBE, status) is N


def test_every_fault_is_judged() -> None:
    """A fault added without a verdict fails here."""
    judged = {fault: of_fault(fault) for fault in Fault}
    assert judged == {
        Fault.CONNECT: F,
        Fault.RESET: F,
        Fault.TIMEOUT: F,
        Fault.CANCELLED: N,
        Fault.NOT_SENT: N,
    }
