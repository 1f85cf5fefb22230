"""What is sent again, after what, under which name, and for how long: one table for all calls.

An attempt that brings no final answer ends in one of the ways of `Happened`. The law: after an
attempt that **may have run**, the same request goes again only where running twice changes nothing,
or where the upstream knows it again by its name (`Policy.known_by`) and gives the first answer.
Whether this upstream does is not the table's business but its caller's (`row_of`).

Once a request may have run, no later attempt can undo that: a refused connection, an open circuit
or a 429 then says nothing about the first attempt. Nor does a refusal, at once: gateways answer for
upstreams they cannot reach. So a refusal in doubt is asked for again, as often as the SDK takes a
400 to a poll for spurious. If it comes every time, with nothing between, then for a refusal of the
bytes themselves the doubt is over (the same bytes had been refused the first time); for one of the
key, the model or the number it stays.

`Asking` follows one request through its attempts and decides; it reads no clock, rolls no dice and
waits for nobody. What else limits repetitions: `core.budget`, drawn on as `Policy.spent` says, and
for submits `core.throttle`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tinkex_proxy.core.backoff import Backoff
from tinkex_proxy.core.outcome import Fault, Operation

__all__ = [
    "DISBELIEVED",
    "POLICIES",
    "Asking",
    "Happened",
    "Kind",
    "Policy",
    "Spent",
    "of_fault",
    "of_status",
    "row_of",
]

# Attempts that may fail to reach the upstream before the caller is told: with the waits between,
# they cover the restart of a local upstream, and are how often a breaker lets it fail.
CONNECT_ATTEMPTS: Final = 5
# The SDK takes a 400 to a poll for spurious three times.
DISBELIEVED: Final = 3


class Kind(enum.Enum):
    """Classes of calls that are repeated alike."""

    __hash__ = object.__hash__  # the enumeration's own is worked out in Python

    TRAINING = "training"
    CREATE_MODEL = "create_model"
    UNRECOGNISED = "unrecognised"
    SAMPLE = "sample"
    CANARY = "canary"
    SESSION = "session"
    QUESTION = "question"
    POLL = "poll"
    HEARTBEAT = "heartbeat"
    PROBE = "probe"
    RELAYED = "relayed"


class Happened(enum.Enum):
    """How an attempt ended that brought no final answer."""

    __hash__ = object.__hash__  # the enumeration's own is worked out in Python

    HELD = "circuit_open"  # by our own breaker: nothing was sent
    UNSENT = "unsent"  # no connection: nothing was sent
    THROTTLED = "throttled"  # 429 or 402: refused for now
    REFUSED = "refused"  # because of its bytes: they will be refused again
    BARRED = "barred"  # because of the key, the model or the number
    FAULT = "fault"  # 5xx or 408: may have run
    LOST = "lost"  # reset or silence: may have run


class Spent(enum.Enum):
    """What is done when there is no budget for a repetition."""

    FAIL = "fail"  # the caller has the last error, now
    WAIT = "wait"  # giving up would leave its caller in doubt
    FREE = "free"  # it never draws on the budget


_MAY_HAVE_RUN: Final = frozenset({Happened.FAULT, Happened.LOST})
_REFUSALS: Final = frozenset({Happened.REFUSED, Happened.BARRED})
# Refusals that no part of a request has earned alone.
_OF_ALL: Final = frozenset({401, 403, 404, 409, 410})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One row.

    Attributes:
        operations: how the breaker judges such calls.
        known_by: what an upstream knows a repetition by; None: by nothing.
        harmless: whether running twice changes nothing.
        repeats: whether it is repeated at all.
        doubtful: whether it is repeated after an attempt that may have run.
        unsent: attempts that may fail to reach the upstream while nothing has run.
        attempts: most attempts of any kind, or None: `patience_s` is what ends them.
        patience_s: how long it is repeated.
        waits_out: whether, once in doubt, an open circuit is waited out.
        obeys_no: whether `x-should-retry: false` ends it. The SDK's training submits go on.
        spent: what is done when the budget is spent.
        backoff: the waits between attempts.
    """

    operations: frozenset[Operation]
    known_by: str | None = None
    harmless: bool = False
    repeats: bool = True
    doubtful: bool = True
    unsent: int = CONNECT_ATTEMPTS
    attempts: int | None = None
    patience_s: float = 300.0
    waits_out: bool = True
    obeys_no: bool = False
    spent: Spent = Spent.WAIT
    backoff: Backoff = Backoff()  # noqa: RUF009 - frozen


_SUBMIT: Final = frozenset({Operation.SUBMIT})
_TRAINING: Final = Policy(operations=_SUBMIT, known_by="model_id, seq_id")
_QUESTION: Final = Policy(
    operations=frozenset({Operation.QUERY}),
    harmless=True,
    attempts=3,
    waits_out=False,
    obeys_no=True,
    spent=Spent.FAIL,
    backoff=Backoff(base_s=0.2, cap_s=2.0),
)


def _never(*operations: Operation) -> Policy:
    return Policy(operations=frozenset(operations), repeats=False, spent=Spent.FREE)


POLICIES: Final[Mapping[Kind, Policy]] = {
    # Gradients, steps, weights: what must happen once.
    Kind.TRAINING: _TRAINING,
    # A second model would take one of the upstream's few places until its session ends.
    Kind.CREATE_MODEL: Policy(operations=_SUBMIT, known_by="session_id, model_seq_id"),
    # Either of them where the upstream runs a repetition again.
    Kind.UNRECOGNISED: Policy(operations=_SUBMIT, doubtful=False),
    # Drawing twice costs time and changes nothing.
    Kind.SAMPLE: Policy(
        operations=_SUBMIT,
        known_by="sampling_session_id, seq_id",
        harmless=True,
        obeys_no=True,
        spent=Spent.FAIL,
    ),
    # Asks whether repetitions are known again, with a request that leaves no gradient.
    Kind.CANARY: Policy(operations=_SUBMIT, known_by="model_id, seq_id", harmless=True),
    # A second session holds nothing, and ends by itself because nobody keeps it alive.
    Kind.SESSION: Policy(
        operations=frozenset({Operation.SESSION}),
        harmless=True,
        attempts=_QUESTION.attempts,
        waits_out=False,
        obeys_no=True,
        spent=Spent.FAIL,
        backoff=_QUESTION.backoff,
    ),
    Kind.QUESTION: _QUESTION,
    # It asks for a result that stays there, so an outage of an hour need not lose it. Its budget is
    # its own: half a second to half a minute between two polls, and none while the circuit is open.
    Kind.POLL: Policy(
        operations=frozenset({Operation.POLL}),
        known_by="request_id",
        harmless=True,
        patience_s=3600.0,
        spent=Spent.FREE,
        backoff=Backoff(base_s=0.5, cap_s=30.0),
    ),
    # The next one is due in seconds.
    Kind.HEARTBEAT: _never(Operation.HEARTBEAT),
    # Whatever is answered is the answer.
    Kind.PROBE: _never(Operation.PROBE),
    # Its sender repeats it, and would not know that we had.
    Kind.RELAYED: _never(Operation.SUBMIT, Operation.QUERY, Operation.POLL, Operation.HEARTBEAT),
}


def row_of(kind: Kind, *, recognised: bool) -> Policy:
    """The row for a call of this kind, at an upstream that knows a repetition again or does not."""
    policy = POLICIES[kind]
    return policy if recognised or policy.harmless else POLICIES[Kind.UNRECOGNISED]


def of_status(status: int) -> Happened | None:
    """What an answer means for a repetition; None: it is the answer, and a good one.

    For polls 408 is one too ("not ready yet"); they ask for their own.
    """
    if 200 <= status < 300:
        return None
    if status in {402, 429}:
        return Happened.THROTTLED
    if status == 408 or status >= 500:
        return Happened.FAULT
    return Happened.REFUSED if status >= 400 and status not in _OF_ALL else Happened.BARRED


def of_fault(fault: Fault) -> Happened:
    """What the lack of an answer means for a repetition."""
    return Happened.UNSENT if fault in {Fault.CONNECT, Fault.NOT_SENT} else Happened.LOST


class Asking:
    """One request on its way to an answer.

    Args:
        policy: its row.
        began: the moment it was first to be sent.
        kind: what it is called where repetitions are counted.
        patience_s: how long it is repeated; None takes the row's.
        persistent: whether it has been promised, so that an upstream that is away is waited for.
        doubtful: whether it may have run before its first attempt here.
    """

    def __init__(
        self,
        policy: Policy,
        began: float,
        *,
        kind: Kind,
        patience_s: float | None = None,
        persistent: bool = False,
        doubtful: bool = False,
    ) -> None:
        self.policy = policy
        self.kind = kind
        self.attempts = 0
        self._may_have_run = doubtful
        self._until = began + (policy.patience_s if patience_s is None else patience_s)
        self._persistent = persistent
        self._refusals = 0
        self._last: Happened | None = None

    @property
    def doubtful(self) -> bool:
        """Whether it may have run, where that matters."""
        return self._may_have_run and not self.policy.harmless

    def waited(self, seconds: float) -> None:
        """Note that it had to wait for budget; its patience is for the upstream."""
        self._until += seconds

    def again(self, happened: Happened, now: float, *, told: bool | None = None) -> bool:
        """Whether to send it again.

        Args:
            happened: how the attempt ended.
            now: when.
            told: what the answer said of it (`x-should-retry`), if it did.

        Returns:
            False: it is over, and `doubtful` says whether it may have run.
        """
        self.attempts += 1
        self._may_have_run = self._may_have_run or happened in _MAY_HAVE_RUN
        self._refusals = self._refusals + 1 if happened is self._last else 1
        self._last = happened
        if self._is_final(happened, told=told) or not self.policy.repeats:
            return False
        if self.doubtful and not self.policy.doubtful:
            return False
        return not self._is_tired(happened) and now < self._until

    def draws(self, happened: Happened) -> bool:
        """Whether sending it again draws on the budget.

        Not where nothing was sent, nor where the upstream has set the date itself: a key that was
        asked to slow down is held back as a whole.
        """
        free = happened in {Happened.HELD, Happened.THROTTLED}
        return self.policy.spent is not Spent.FREE and not free

    def _is_final(self, happened: Happened, *, told: bool | None) -> bool:
        """Whether this is the upstream's last word."""
        if told is False and self.policy.obeys_no:
            return True
        if happened not in _REFUSALS or told is True:
            return False
        if self.doubtful:
            if self._refusals <= DISBELIEVED:
                return False
            self._may_have_run = happened is Happened.BARRED
        return True

    def _is_tired(self, happened: Happened) -> bool:
        """Whether it has been tried often enough."""
        if self.policy.attempts is not None and self.attempts >= self.policy.attempts:
            return True
        if self._persistent:
            return False
        if happened is Happened.HELD:
            return not (self._may_have_run and self.policy.waits_out)
        away = happened is Happened.UNSENT and not self._may_have_run
        return away and self.attempts >= self.policy.unsent
