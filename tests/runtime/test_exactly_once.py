"""Whatever an upstream does, in whatever order: nothing acts twice, and what is said of it is true.

The upstream here does what a script says, one entry for each submit, and keeps count of what really
acted. One that recognises (model_id, seq_id) gives the first answer to a repetition, and 409 to
other bytes; one that does not acts on whatever reaches it. A gateway in front may refuse what never
reached it, three times in a row at most: the SDK, too, takes no more for chance.
"""

import asyncio
import enum
from collections import Counter
from functools import partial
from itertools import groupby

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.runtime.conftest import Bench, EagerClock, Recorder
from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.core.retry import DISBELIEVED
from tinkex_proxy.errors import OutcomeUnknown, ProxyError
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.lanes import LaneDriver, Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.recognition import Assumed, Recognition
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Request, Response
from tinkex_proxy.runtime.upstream import PROTOBUF, Ask
from tinkex_proxy.runtime.work import Order, Training
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import Fragment


class Does(enum.Enum):
    """What happens to a submit."""

    ADMIT = "it acts and says so"
    REFUSE = "a gateway refuses it"
    THROTTLE = "it is told to come again"
    FAULT = "500 without acting"
    FAULT_AFTER = "500 after acting"
    RESET = "a reset without acting"
    RESET_AFTER = "a reset after acting"
    SILENCE_AFTER = "it acts and its answer is lost"
    AWAY = "no connection"


ACTS = {Does.ADMIT, Does.FAULT_AFTER, Does.RESET_AFTER, Does.SILENCE_AFTER}
IN_DOUBT = set(Does) - {Does.ADMIT, Does.REFUSE, Does.THROTTLE, Does.AWAY}
Entry = tuple[Does, int]


def believable(script: list[Entry]) -> bool:
    """Whether no gateway refuses more than three times in a row."""
    return all(
        does is not Does.REFUSE or len(list(run)) <= 3
        for does, run in groupby(script, key=lambda entry: entry[0])
    )


SCRIPTS = st.lists(
    st.tuples(st.sampled_from(list(Does)), st.sampled_from([400, 401, 403, 404, 413, 422])),
    max_size=25,
).filter(believable)


def answer(status: int, body: object = None, **headers: str) -> Response:
    named = {"content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, msgspec.json.encode({} if body is None else body))


class Scripted:
    """The upstream.

    Attributes:
        acted: how often each label has acted.
        again: whether bytes came again after an attempt that may have run.
    """

    def __init__(self, script: list[Entry], *, recognises: bool) -> None:
        self._script = list(script)
        self._recognises = recognises
        self._seen: dict[int, tuple[bytes, str]] = {}
        self._suspect: set[bytes] = set()
        self._results: list[Response] = []
        self.acted = Counter[int]()
        self.again = False

    def __call__(self, request: Request) -> Response | Fault:
        canary = request.headers["content-type"] == PROTOBUF
        body = _of_canary(request.body) if canary else msgspec.json.decode(request.body)
        if request.path.endswith("retrieve_future"):
            return self._results[int(body["request_id"])]
        if request.path.endswith("get_info"):
            return answer(200)
        does, refusal = self._script.pop(0) if self._script else (Does.ADMIT, 0)
        self.again = self.again or request.body in self._suspect
        if does in IN_DOUBT and not canary:
            self._suspect.add(request.body)
        before = {
            Does.REFUSE: answer(refusal, {"detail": "the gateway's own"}),
            Does.THROTTLE: answer(429, retry_after_ms="500"),
            Does.FAULT: answer(500),
            Does.RESET: Fault.RESET,
            Does.AWAY: Fault.CONNECT,
        }
        if does not in ACTS:
            return before[does]
        admitted = self._act(body, request.body)
        if admitted.status != 200:
            return admitted
        after = {
            Does.ADMIT: admitted,
            Does.FAULT_AFTER: answer(500),
            Does.RESET_AFTER: Fault.RESET,
            Does.SILENCE_AFTER: Fault.TIMEOUT,
        }
        return after[does]

    def _act(self, body: dict[str, object], raw: bytes) -> Response:
        seq_id = int(str(body["seq_id"]))
        labels = labels_of(body)
        if -1 in labels:
            return answer(400, {"detail": "one of them is bad"})
        first = self._seen.get(seq_id)
        if self._recognises and first is not None:
            return answer(200, {"request_id": first[1]}) if first[0] == raw else answer(409)
        self.acted.update(labels)
        outputs = [{"logprobs": {"data": [n], "dtype": "float32", "shape": [1]}} for n in labels]
        self._results.append(answer(200, {"loss_fn_outputs": outputs, "metrics": {}}))
        self._seen[seq_id] = (raw, str(len(self._results) - 1))
        return answer(200, {"request_id": self._seen[seq_id][1]})


def _of_canary(body: bytes) -> dict[str, object]:
    """The one request here that is protobuf asks whether repetitions are known again."""
    asked = pb.ForwardBackwardRequest.FromString(body)
    assert asked.forward_only
    return {"seq_id": asked.seq_id, "forward_backward_input": {"data": []}}


def labels_of(body: dict[str, object]) -> list[int]:
    given = body.get("forward_backward_input")
    if isinstance(given, dict):
        return [datum["n"] for datum in given["data"]]
    return [int(str(body["label"]))]


class Hurried(EagerClock):
    """Time that jumps to whatever was set for a moment too, and not only over sleeps."""

    def call_later(self, seconds, callback):
        due = self.now() + seconds
        call_off = super().call_later(seconds, callback)
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self.advance(max(0.0, due - self.now())))
        return call_off


def bench() -> Bench:
    recorder = Recorder()
    tasks = Tasks(lambda name, error: None)
    return Bench(Hurried(), recorder, Hub([recorder], print), tasks, [])


def said_truly(script: list[Entry], *, recognises: bool, persistent: bool) -> None:
    """Submit one request through a script."""
    upstream = Scripted(script, recognises=recognises)

    async def submit() -> Admitted | Refused:
        made = bench()
        over, _ = made.upstream(upstream, threshold=10_000)
        ask = Ask(
            operation=Operation.SUBMIT,
            path="/api/v1/optim_step",
            body=b'{"seq_id":1,"label":7}',
            repeatable=recognises,
            persistent=persistent,
        )
        return await Submitter(over, made.clock, patience_s=1e6).submit(ask)

    verdict = asyncio.run(submit())
    assert upstream.acted[7] <= 1
    if isinstance(verdict, Admitted):
        assert upstream.acted[7] == 1
    elif not verdict.doubtful:
        assert upstream.acted[7] == 0, "its caller is told that nothing ran"
    if recognises:
        assert isinstance(verdict, Admitted) or not verdict.doubtful, "it could be resolved"
    else:
        assert not upstream.again, "sent again though it may have run"


@given(script=SCRIPTS, persistent=st.booleans())
@example(script=[(Does.RESET_AFTER, 0), (Does.REFUSE, 404)], persistent=False)
@example(
    script=[(Does.FAULT_AFTER, 0), *[(Does.REFUSE, 400), (Does.THROTTLE, 0)] * 5], persistent=False
)
def test_one_request_acts_once_where_its_number_is_recognised(
    script: list[Entry], persistent: bool
) -> None:
    said_truly(script, recognises=True, persistent=persistent)


@given(script=SCRIPTS, persistent=st.booleans())
@example(script=[(Does.THROTTLE, 0), (Does.RESET_AFTER, 0)], persistent=True)
def test_one_request_goes_out_once_in_doubt_where_its_number_is_not(
    script: list[Entry], persistent: bool
) -> None:
    said_truly(script, recognises=False, persistent=persistent)


def training(label: int) -> Training:
    fragment = Fragment(Flavour.JSON, b'{"n":%d}' % label, 1, 10)
    return Training(fragment=fragment, loss_fn="cross_entropy", loss_fn_config={}, coalesce=True)


# Calls of one lane in their order: groups that may share a request, and steps between them. The
# label -1 is a call that no upstream takes.
WORKS = st.lists(st.sampled_from(["share", "share", "share", "step", "bad"]), max_size=8)


@pytest.mark.parametrize("told", [True, False], ids=["told", "asked"])
@pytest.mark.parametrize("recognises", [True, False])
@settings(max_examples=60)
@example(  # a gateway's word among the upstream's own
    script=[
        (Does.FAULT, 0),
        (Does.ADMIT, 0),
        (Does.ADMIT, 0),
        (Does.ADMIT, 0),
        (Does.REFUSE, 401),
        (Does.ADMIT, 0),
    ],
    kinds=["share", "bad"],
    patience_s=1e6,
)
@example(  # the question whether repetitions are known again is refused for good
    script=[(Does.FAULT, 0), *[(Does.REFUSE, 400)] * 3, (Does.THROTTLE, 0), (Does.REFUSE, 400)],
    kinds=["share"],
    patience_s=1e6,
)
@given(script=SCRIPTS, kinds=WORKS, patience_s=st.sampled_from([5.0, 1e6]))
def test_of_a_lane_nothing_acts_twice_and_nothing_is_lost(
    recognises: bool, told: bool, script: list[Entry], kinds: list[str], patience_s: float
) -> None:
    """Shared requests, halves, numbers that were given up and numbers that turn out to be used.

    Whether repetitions are known again is told beforehand, or found out by asking.
    """
    upstream = Scripted(script, recognises=recognises)
    assumed = Assumed.ASK
    if told:
        assumed = Assumed.YES if recognises else Assumed.NO
    labels = [-1 if kind == "bad" else number for number, kind in enumerate(kinds)]
    works = [
        Order("/api/v1/optim_step", {"label": label}) if kind == "step" else training(label)
        for kind, label in zip(kinds, labels, strict=True)
    ]

    async def run() -> list[object]:
        made = bench()
        over, _ = made.upstream(upstream, threshold=10_000)
        tools = Tools(
            submitter=Submitter(over, made.clock, patience_s=patience_s),
            poller=Poller(over, made.clock),
            knows=partial(knows_model, over, made.clock),
            tasks=made.tasks,
            clock=made.clock,
            hub=made.hub,
            recognition=Recognition(assumed),
        )
        flavour = Flavour.PROTOBUF
        limits = Limits(linger_s=0, idle_s=0)
        driver = LaneDriver("m", Lane(limits), tools, flavour=flavour, on_gone=print)
        calls = driver.put(works, deadline=None)
        async with asyncio.timeout(30):  # of real time: nothing here waits for it
            return await asyncio.gather(*(call.answer for call in calls), return_exceptions=True)

    refusals = sum(does is Does.REFUSE for does, _ in script)
    for label, got in zip(labels, asyncio.run(run()), strict=True):
        assert upstream.acted[label] <= (label != -1)
        if not isinstance(got, BaseException):
            assert upstream.acted[label] == 1
        else:
            assert isinstance(got, ProxyError)
            unknown = isinstance(got, OutcomeUnknown)
            assert unknown or upstream.acted[label] == 0, "its caller is told that nothing ran"
            # A question that is refused as often as that is believed to have been.
            askable = told or refusals <= DISBELIEVED
            could_be_resolved = recognises and askable and patience_s > 5
            assert not (unknown and could_be_resolved)
