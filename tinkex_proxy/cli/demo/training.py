"""A training run as any program would write it: plain HTTP calls, several callers at once.

Every call carries an `Idempotency-Key`, and one that is refused with `retryable` goes again as it
is once `Retry-After` is over: that is all a caller has to do to survive an outage. Text is trained
byte by byte: the sandbox's vocabulary begins with the 256 bytes.
"""

import http
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
import msgspec

from tinkex_proxy.cli.exits import FAILED, CommandError

__all__ = ["VERSES", "Datum", "Run", "Step", "datum_of", "readable"]

VERSES: Final = (
    "Four callers came to train one day, ",
    "each with a verse of its own to say: ",
    "one request took all their pleas, ",
    "and each got back its own with ease. ",
)
RANK: Final = 16
LEARNING_RATE: Final = 0.02
SAMPLE_TOKENS: Final = 48
CALL_TIMEOUT_S: Final = 60.0
# How long a refused call goes again: longer than a breaker stays open.
PATIENCE_S: Final = 60.0
# Before a retryable call goes again that was not told when.
UNTOLD_WAIT_S: Final = 1.0

T = TypeVar("T")
Datum = Mapping[str, list[int]]


class _Batch(msgspec.Struct):
    id: str
    requests: int


class _Trained(msgspec.Struct):
    loss: float
    batch: _Batch


class _Made(msgspec.Struct):
    model_id: str


class _Offered(msgspec.Struct):
    model_name: str


class _Capabilities(msgspec.Struct):
    models: list[_Offered]


class _Sequence(msgspec.Struct):
    tokens: list[int]


class _Sampled(msgspec.Struct):
    sequences: list[_Sequence]


class _Problem(msgspec.Struct):
    title: str
    detail: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step.

    Attributes:
        number: from 1.
        loss: mean over tokens.
        calls: `forward_backward` calls that made its gradient.
        requests: upstream requests that they became.
    """

    number: int
    loss: float
    calls: int
    requests: int


def datum_of(text: str) -> Datum:
    """A text in the short form: each byte is to predict the next."""
    tokens = list(text.encode())
    return {"tokens": tokens[:-1], "targets": tokens[1:]}


def readable(tokens: list[int]) -> str:
    """Tokens as text, with a dot for what is not printable ASCII."""
    return "".join(chr(token) if 32 <= token < 127 else "·" for token in tokens)


class Run:
    """One training run against one proxy.

    Args:
        client: opened on the proxy's URL.
        sleep: waits; for tests.

    Attributes:
        refused: calls that were refused and went again.
    """

    def __init__(self, client: httpx.Client, sleep: Callable[[float], object] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep
        self.refused = 0
        offered = self._get("/v1/capabilities", _Capabilities).models
        self.base_model = offered[0].model_name
        body = {"base_model": self.base_model, "rank": RANK, "seed": 0}
        self.model_id = self._post("/v1/models", body, _Made).model_id

    def steps(self, count: int) -> Iterator[Step]:
        """Train; each step is one gradient from all verses' callers and one `optim_step`."""
        tokens = sum(len(verse) - 1 for verse in VERSES)
        with ThreadPoolExecutor(len(VERSES)) as callers:
            for number in range(1, count + 1):
                trained = list(callers.map(self._train, VERSES))
                adam = {"learning_rate": LEARNING_RATE}
                body = {"model_id": self.model_id, "adam_params": adam}
                self._post("/v1/optim_step", body, dict)
                batches = Counter(one.batch.id for one in trained)
                loss = sum(one.loss for one in trained) / tokens
                yield Step(number, loss, len(trained), len(batches))

    def sample(self) -> str:
        """Let the model go on from the first word, taking the likeliest token each time."""
        prompt = list(b"Four")
        body = {
            "model_id": self.model_id,
            "prompt": prompt,
            "sampling_params": {"max_tokens": SAMPLE_TOKENS, "temperature": 0.0},
        }
        sampled = self._post("/v1/sample", body, _Sampled).sequences[0].tokens
        return readable(prompt + sampled)

    def _train(self, verse: str) -> _Trained:
        body = {"model_id": self.model_id, "data": [datum_of(verse)]}
        return self._post("/v1/forward_backward", body, _Trained)

    def _get(self, path: str, form: type[T]) -> T:
        return _read(self._client.get(path), form)

    def _post(self, path: str, body: Mapping[str, object], form: type[T]) -> T:
        headers = {"idempotency-key": uuid.uuid4().hex}
        waited_s = 0.0
        while True:
            answer = self._client.post(path, json=body, headers=headers)
            wait_s = _again_after_s(answer)
            if wait_s is None or waited_s + wait_s > PATIENCE_S:
                return _read(answer, form)
            self.refused += 1
            waited_s += wait_s
            self._sleep(wait_s)


def _again_after_s(answer: httpx.Response) -> float | None:
    """How long to wait before the same call goes again; None when it must not, or need not."""
    if answer.status_code == http.HTTPStatus.OK or not _problem(answer).retryable:
        return None
    after = answer.headers.get("retry-after", "")
    return float(after) if after.isdecimal() else UNTOLD_WAIT_S


def _problem(answer: httpx.Response) -> _Problem:
    return msgspec.json.decode(answer.content, type=_Problem)


def _read(answer: httpx.Response, form: type[T]) -> T:
    if answer.status_code != http.HTTPStatus.OK:
        problem = _problem(answer)
        told = f"{problem.title}: {problem.detail}"
        raise CommandError(f"{answer.url.path} answered {told}", status=FAILED)
    return msgspec.json.decode(answer.content, type=form)
