"""Sessions: kept alive by heartbeats, ended without them, and their models with them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tinkex_proxy.sandbox.bodies import BadRequest

__all__ = ["Session", "Sessions"]


@dataclass(slots=True)
class Session:
    """One client's session."""

    session_id: str
    last_beat: float


class Sessions:
    """All sessions.

    Args:
        timeout_s: time without a heartbeat after which a session ends.
        now: gives monotonic seconds.
        on_end: told the id of a session that ended.
    """

    def __init__(
        self, timeout_s: float, now: Callable[[], float], on_end: Callable[[str], None]
    ) -> None:
        self._timeout_s = timeout_s
        self._now = now
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._sessions: dict[str, Session] = {}
        self._ended: set[str] = set()

    def create(self) -> Session:
        """A new session."""
        session = Session(f"session_{next(self._numbers):08x}", self._now())
        self._sessions[session.session_id] = session
        return session

    def beat(self, session_id: str) -> None:
        """A heartbeat."""
        self.find(session_id).last_beat = self._now()

    def find(self, session_id: str) -> Session:
        """A live session.

        Raises:
            BadRequest: 410, it has ended; 404, there never was one.
        """
        self.sweep()
        if session_id in self._ended:
            raise BadRequest("Session has ended", 410)
        session = self._sessions.get(session_id)
        if session is None:
            raise BadRequest("Session not found", 404)
        return session

    def sweep(self) -> None:
        """End the sessions whose time is over."""
        oldest_good = self._now() - self._timeout_s
        for session in list(self._sessions.values()):
            if session.last_beat < oldest_good:
                self.end(session.session_id)

    def end(self, session_id: str) -> None:
        """End a session now."""
        if self._sessions.pop(session_id, None) is not None:
            self._ended.add(session_id)
            self._on_end(session_id)

    def end_all(self) -> list[str]:
        """End every session now; gives which."""
        ids = self.ids
        for session_id in ids:
            self.end(session_id)
        return ids

    @property
    def ids(self) -> list[str]:
        """Live sessions, oldest first."""
        self.sweep()
        return list(self._sessions)
