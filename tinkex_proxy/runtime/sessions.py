"""The upstream session of one API key: made on first need, kept alive, replaced when it ends.

A session that misses its heartbeats is ended by the upstream (SkyRL: after 300 s) and its models
are unloaded with it. A heartbeat answered 410 or 404 says that this has happened: the models are
declared lost, with the reason, and the next call that needs a session gets a new one. A heartbeat
that is merely unanswered says nothing and is not repeated before its next turn, as in the SDK.

A session goes on over a restart of the proxy: its id is in the journal, and so is how many models
and samplers were made in it, for the upstream takes the same number for the same one.
"""

import asyncio
from collections.abc import Callable

import msgspec

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import CircuitOpen, UpstreamFault
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.records import SessionRecord, deleted, written
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.upstream import Ask, Unanswered, Upstream, json_of

__all__ = ["SDK_VERSION", "Session"]

# The wire generation that we speak; upstreams choose behaviour by it.
SDK_VERSION = "0.38.0"
# The SDK gives a heartbeat 10 s and never repeats it.
HEARTBEAT_TIMEOUT_S = 10.0


class Session:
    """One key's session.

    Args:
        upstream: where to.
        clock: paces the heartbeats.
        tasks: runs them.
        interval_s: time between heartbeats.
        book: the key's part of the journal.
        on_lost: told the id and the reason when the upstream has ended a session.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        clock: Clock,
        tasks: Tasks,
        interval_s: float,
        book: Book,
        on_lost: Callable[[str, str], None],
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._tasks = tasks
        self._interval_s = interval_s
        self._book = book
        self._on_lost = on_lost
        self._lock = asyncio.Lock()
        self._heart: asyncio.Task[None] | None = None
        self.current: str | None = None
        self.models_made = 0
        self.samplers_made = 0

    def reconfigure(self, *, interval_s: float) -> None:
        """Keep this time between heartbeats, after the next one."""
        self._interval_s = interval_s

    async def ensure(self) -> str:
        """Give the session's id, making one if there is none.

        Raises:
            ProxyError: the upstream could not be asked, or refused.
        """
        if self.current is not None:
            return self.current
        async with self._lock:
            if self.current is None:
                self.current = await self._create()
                self.models_made = self.samplers_made = 0
                self._keep()
                self._start_beating(self.current)
            return self.current

    def restore(self, record: SessionRecord) -> None:
        """Go on with the session of an earlier run."""
        self.current = record.session_id
        self.models_made, self.samplers_made = record.models_made, record.samplers_made
        self._start_beating(record.session_id)

    def next_model_seq(self) -> int:
        """The `model_seq_id` of the next model of this session.

        To be committed to the journal before it is used, and so is the next.
        """
        self.models_made += 1
        self._keep()
        return self.models_made - 1

    def next_sampler_seq(self) -> int:
        """The `sampling_session_seq_id` of the next sampler of this session."""
        self.samplers_made += 1
        self._keep()
        return self.samplers_made - 1

    def stop(self) -> None:
        """End the heartbeats; the upstream ends the session by itself."""
        if self._heart is not None:
            self._heart.cancel()
        self._forget()

    def lost(self, session_id: str, reason: str) -> None:
        """Note that the upstream has ended a session; a second note of the same changes nothing."""
        if self.current == session_id:
            self._forget()
            self.current = None
            self._on_lost(session_id, reason)

    def _keep(self) -> None:
        if self.current is not None and self._book.journal.on:
            self._book.journal.note(written(self._record(self.current)))

    def _forget(self) -> None:
        if self.current is not None:
            self._book.journal.note(deleted(self._record(self.current)))

    def _record(self, session_id: str) -> SessionRecord:
        return SessionRecord(self._book.owner, session_id, self.models_made, self.samplers_made)

    def _start_beating(self, session_id: str) -> None:
        name = f"heartbeat {session_id}"
        self._heart = self._tasks.spawn(name, self._beat(session_id))

    async def _create(self) -> str:
        body = {
            "tags": ["tinkex-proxy"],
            "user_metadata": {},
            "sdk_version": SDK_VERSION,
            "type": "create_session",
        }
        response = await query(
            self._upstream,
            self._clock,
            "/api/v1/create_session",
            body,
            operation=Operation.SESSION,
        )
        made = json_of(response).get("session_id")
        if not isinstance(made, str):
            raise UpstreamFault("create_session answered without a session_id.")
        return made

    async def beat(self, session_id: str) -> bool:
        """Send one heartbeat; gives whether the session may be alive, and notes when it is not."""
        ask = Ask(
            operation=Operation.HEARTBEAT,
            path="/api/v1/session_heartbeat",
            body=msgspec.json.encode({"session_id": session_id, "type": "session_heartbeat"}),
            timeout_s=HEARTBEAT_TIMEOUT_S,
        )
        try:
            response = await self._upstream.ask(ask)
        except (Unanswered, CircuitOpen):
            return True
        if response.status not in {404, 410}:
            return True
        self.lost(session_id, f"its heartbeat was answered {response.status}")
        return False

    async def _beat(self, session_id: str) -> None:
        while self.current == session_id:
            await self._clock.sleep(self._interval_s)
            await self.beat(session_id)
