"""Who listens to what happened.

Metrics and logs hang on this one seam: the code that acts says what it did and knows neither. A
listener that raises is reported once by the hub and can break nothing.

A call tells of a handful of things that are only counted, and counting them one by one takes a
fifth of what it costs to relay it: each time the processor has to find the same few functions
again. So a listener can take records of a kind **together**: the hub gathers them for a moment.
Whoever looks at what was counted has it told first (`Hub.flush`), so that nobody sees less.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Never, Protocol

from tinkex_proxy.runtime.events import Event

__all__ = ["GATHERED_S", "MOST", "ByKind", "Hub", "Listener"]

# How long records are gathered, and how many of a kind. Sixteen at a time are nearly as cheap for
# each as hundreds, and with 128 who came in that moment had twice the p99 (p50 the same).
GATHERED_S: Final = 0.05
MOST: Final = 32

_Together = Callable[[Sequence[Event]], None]


class Listener(Protocol):
    """Who wants to know. One that wants only some kinds has a set of their types as `KINDS`."""

    def on_event(self, event: Event) -> None:
        """Take one record; must be quick."""
        ...


class ByKind:
    """A listener that has a method for each kind of event that it wants.

    The hub calls it straight away: of what a cheap call costs, finding it again for each event was
    a noticeable part.

    Args:
        handlers: by kind, what takes a record.
        together: by kind, what takes some records, in order.
    """

    def __init__(
        self,
        handlers: Mapping[type[Event], Callable[[Never], None]],
        together: Mapping[type[Event], Callable[[Sequence[Never]], None]] = MappingProxyType({}),
    ) -> None:
        # Each is called with the kind that it stands under, and with no other.
        self.handlers: Mapping[type[Event], Callable[[Event], None]] = handlers  # type: ignore[assignment]
        self.together: Mapping[type[Event], _Together] = together  # type: ignore[assignment]

    def on_event(self, event: Event) -> None:
        """Take one record, of any kind."""
        handler, together = self.handlers.get(type(event)), self.together.get(type(event))
        if handler is not None:
            handler(event)
        if together is not None:
            together((event,))


class _Gathering:
    """Records of one kind that are told together.

    Args:
        hearers: take them.
        on_broken: told the exception of one that raised.
        begun: called when the first one is there.
    """

    def __init__(
        self,
        hearers: Sequence[_Together],
        on_broken: Callable[[Exception], None],
        begun: Callable[[], None],
    ) -> None:
        self._hearers = hearers
        self._on_broken = on_broken
        self._begun = begun
        self._events: list[Event] = []

    def take(self, event: Event) -> None:
        """Take one."""
        events = self._events
        events.append(event)
        if len(events) == 1:
            self._begun()
        elif len(events) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Tell those that are there."""
        events, self._events = self._events, []
        if not events:
            return
        for together in self._hearers:
            try:
                together(events)
            except Exception as error:  # noqa: BLE001 - as for one
                self._on_broken(error)


class Hub:
    """Tells every listener.

    Args:
        listeners: who is told, in this order.
        on_broken: told the exception of a listener that raised.
        later: has a function called after so many seconds; None: what is gathered is told at once.
    """

    def __init__(
        self,
        listeners: Iterable[Listener],
        on_broken: Callable[[Exception], None],
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._listeners = tuple(listeners)
        self._on_broken = on_broken
        self._later = later
        self._waits = False
        # By kind of event: a call tells of a handful, and most listeners want none of them.
        self._hearers: dict[type[Event], tuple[Callable[[Event], None], ...]] = {}
        self._gathered: list[_Gathering] = []

    def tell(self, event: Event) -> None:
        """Tell every listener that wants to know, whatever the others do."""
        kind = type(event)
        hearers = self._hearers.get(kind)
        if hearers is None:
            hearers = self._hearers[kind] = self._who_hears(kind)
        for on_event in hearers:
            try:
                on_event(event)
            except Exception as error:  # noqa: BLE001 - whatever a listener does must not reach a call
                self._on_broken(error)

    def flush(self) -> None:
        """Tell what has been gathered."""
        for gathered in self._gathered:
            gathered.flush()

    def _who_hears(self, kind: type[Event]) -> tuple[Callable[[Event], None], ...]:
        found = (_handler(each, kind) for each in self._listeners)
        hearers = [handler for handler in found if handler is not None]
        by_kind = [each for each in self._listeners if isinstance(each, ByKind)]
        together = [each.together[kind] for each in by_kind if kind in each.together]
        if together:
            gathering = _Gathering(together, self._on_broken, self._begun)
            self._gathered.append(gathering)
            hearers.append(gathering.take)
        return tuple(hearers)

    def _begun(self) -> None:
        if self._later is None:
            self.flush()
        elif not self._waits:
            self._waits = True
            self._later(GATHERED_S, self._over)

    def _over(self) -> None:
        self._waits = False
        self.flush()


def _handler(listener: Listener, kind: type[Event]) -> Callable[[Event], None] | None:
    """What of a listener takes a record of a kind by itself; None where nothing does."""
    if isinstance(listener, ByKind):
        return listener.handlers.get(kind)
    kinds = getattr(listener, "KINDS", None)
    return listener.on_event if kinds is None or kind in kinds else None
