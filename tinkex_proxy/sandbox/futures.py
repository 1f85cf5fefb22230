"""Promises: what a submit is answered with, and what `retrieve_future` later gives.

A result can be fetched again and again, by several polls at once. Only when very many newer ones
have been made is the oldest forgotten; whoever asks for it then is told that it is gone, and not
that it never was.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from tinkex_proxy.sandbox.bodies import BadRequest, Outputs

__all__ = ["Failed", "Gone", "Promise", "Promises", "Result", "Sampled"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was taken and then failed, for good."""

    error: str
    category: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The request will never have a result: its model ended before its turn came."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampling result in both encodings."""

    json: dict[str, object]
    protobuf: bytes


Result = dict[str, object] | Outputs | Sampled | Failed | Gone


@dataclass(eq=False, slots=True)
class Promise:
    """One request's result, there or not."""

    request_id: str
    model_id: str | None = None
    result: Result | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, result: Result) -> None:
        """Give the result; the first one stays."""
        if self.result is None:
            self.result = result
        self.done.set()


class Promises:
    """All promises of a sandbox.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._made = 0
        self._promises: dict[str, Promise] = {}

    def make(self, model_id: str | None = None) -> Promise:
        """A new promise."""
        self._made += 1
        promise = Promise(str(self._made), model_id)
        self._promises[promise.request_id] = promise
        if len(self._promises) > self._limit:
            del self._promises[next(iter(self._promises))]
        return promise

    def find(self, request_id: str) -> Promise:
        """A promise by its id.

        Raises:
            BadRequest: 410, it was forgotten; 404, it never was made.
        """
        promise = self._promises.get(request_id)
        if promise is not None:
            return promise
        if request_id.isdecimal() and 1 <= int(request_id) <= self._made:
            raise BadRequest("Promise is gone", 410)
        raise BadRequest("Future not found", 404)

    async def wait(self, promise: Promise, hold_s: float) -> Result | None:
        """Its result, or None if it is not there after `hold_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(hold_s):
                await promise.done.wait()
        return promise.result
