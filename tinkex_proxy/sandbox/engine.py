"""Running models' requests in their order, once each.

The requests of a model run by `seq_id`: n+1 does not start before n has arrived and run. A request
is known by (model_id, seq_id): the same body again gives the first request's promise, another body
is a conflict, and so is a number that has passed. Requests without a number run when they come.
Work starts on a tick, as a real trainer's does, and everything that is due runs in that tick.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.futures import Failed, Gone, Promise, Promises, Result
from tinkex_proxy.sandbox.trainer import Trained

__all__ = ["Engine", "Live"]

Work = Callable[[Trained], Result]


@dataclass(eq=False, slots=True)
class Live:
    """A model that is loaded.

    Attributes:
        model_id: its name.
        session_id: it ends with this session.
        trained: weights and optimizer.
        next_seq: the number that runs next; 0 is the creation itself.
        seen: digest and promise of every number that came.
        waiting: work that came before its turn.
    """

    model_id: str
    session_id: str
    trained: Trained
    user_metadata: dict[str, object] | None = None
    next_seq: int = 0
    seen: dict[int, tuple[bytes, Promise]] = field(default_factory=dict)
    waiting: dict[int, tuple[Work, Promise]] = field(default_factory=dict)
    runner: "asyncio.Task[None] | None" = None


class Engine:
    """All live models.

    Args:
        promises: where results are kept.
        tick_s: time between the starts of work.
    """

    def __init__(self, promises: Promises, tick_s: float) -> None:
        self._promises = promises
        self._tick_s = tick_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.models: dict[str, Live] = {}

    def find(self, model_id: str) -> Live:
        """A live model.

        Raises:
            BadRequest: 404.
        """
        live = self.models.get(model_id)
        if live is None:
            raise BadRequest("Model not found", 404)
        return live

    def remove(self, live: Live) -> None:
        """End a model; what waits for its turn will never run."""
        del self.models[live.model_id]
        for _, promise in live.waiting.values():
            promise.keep(Gone("Promise is gone: its model has ended"))
        live.waiting.clear()

    def submit(self, live: Live, seq_id: int | None, body: bytes, work: Work) -> Promise:
        """Take a request.

        Raises:
            BadRequest: 409, the number was used by another body or has passed.
        """
        digest = hashlib.blake2b(body).digest()
        if seq_id is None:
            seq_id = max([live.next_seq - 1, *live.waiting, *live.seen]) + 1
        if seq_id in live.seen:
            first, promise = live.seen[seq_id]
            if first != digest:
                raise BadRequest("Training request sequence number was reused", 409)
            return promise
        if seq_id < live.next_seq:
            raise BadRequest(f"Training request sequence number {seq_id} has passed", 409)
        promise = self._promises.make(live.model_id)
        live.seen[seq_id] = (digest, promise)
        live.waiting[seq_id] = (work, promise)
        if live.runner is None:
            live.runner = self.spawn(self._run(live))
        return promise

    def later(self, promise: Promise, make: Callable[[], Result]) -> None:
        """Keep a promise that belongs to no lane, on the next tick."""

        async def run() -> None:
            await asyncio.sleep(self._tick_s)
            promise.keep(await asyncio.to_thread(_guarded, make))

        self.spawn(run())

    def spawn(self, work: "asyncio.Future[None] | object") -> "asyncio.Task[None]":
        """Run in the background."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End everything that runs."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, live: Live) -> None:
        try:
            while live.next_seq in live.waiting:
                await asyncio.sleep(self._tick_s)
                while live.next_seq in live.waiting:
                    work, promise = live.waiting.pop(live.next_seq)
                    promise.keep(await asyncio.to_thread(_guarded, lambda: work(live.trained)))  # noqa: B023
                    live.next_seq += 1
        finally:
            live.runner = None


def _guarded(make: Callable[[], Result]) -> Result:
    try:
        return make()
    except BadRequest as error:
        return Failed(str(error), "user")
    except Exception as error:  # noqa: BLE001 - a fault of the engine is its requester's answer
        return Failed(f"{type(error).__name__}: {error}", "server")
