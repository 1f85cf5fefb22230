"""Promises: what a submit is answered with, and what `retrieve_future` later gives.

A promise is never dropped: its result can be fetched again and again, by several polls at once.
"""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field

from tinkex_proxy.sandbox.bodies import Outputs

__all__ = ["Failed", "Promise", "Promises", "Sampled"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was taken and then failed, for good."""

    error: str
    category: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampling result in both encodings."""

    json: dict[str, object]
    protobuf: bytes


Result = dict[str, object] | Outputs | Sampled | Failed


@dataclass(eq=False, slots=True)
class Promise:
    """One request's result, there or not."""

    request_id: str
    model_id: str | None = None
    result: Result | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, result: Result) -> None:
        """Give the result."""
        self.result = result
        self.done.set()


class Promises:
    """All promises of a sandbox."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._promises: dict[str, Promise] = {}

    def make(self, model_id: str | None = None) -> Promise:
        """A new promise."""
        promise = Promise(str(next(self._numbers)), model_id)
        self._promises[promise.request_id] = promise
        return promise

    def find(self, request_id: str) -> Promise | None:
        """A promise by its id."""
        return self._promises.get(request_id)

    async def wait(self, promise: Promise, hold_s: float) -> Result | None:
        """Its result, or None if it is not there after `hold_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(hold_s):
                await promise.done.wait()
        return promise.result
