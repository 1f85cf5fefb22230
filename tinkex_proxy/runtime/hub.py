"""Who listens to what happened.

Metrics and logs hang on this one seam: the code that acts says what it did and knows neither. A
listener that raises is reported once by the hub and can break nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Never, Protocol

from tinkex_proxy.runtime.events import Event

__all__ = ["ByKind", "Hub", "Listener"]


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
    """

    def __init__(self, handlers: Mapping[type[Event], Callable[[Never], None]]) -> None:
        # Each is called with the kind that it stands under, and with no other.
        self.handlers: Mapping[type[Event], Callable[[Event], None]] = handlers  # type: ignore[assignment]

    def on_event(self, event: Event) -> None:
        """Take one record, of any kind."""
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)


class Hub:
    """Tells every listener.

    Args:
        listeners: who is told, in this order.
        on_broken: told the exception of a listener that raised.
    """

    def __init__(
        self, listeners: Iterable[Listener], on_broken: Callable[[Exception], None]
    ) -> None:
        self._listeners = tuple(listeners)
        self._on_broken = on_broken
        # By kind of event: a call tells of a handful, and most listeners want none of them.
        self._hearers: dict[type[Event], tuple[Callable[[Event], None], ...]] = {}

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

    def _who_hears(self, kind: type[Event]) -> tuple[Callable[[Event], None], ...]:
        found = (_handler(each, kind) for each in self._listeners)
        return tuple(handler for handler in found if handler is not None)


def _handler(listener: Listener, kind: type[Event]) -> Callable[[Event], None] | None:
    """What of a listener takes a kind of event; None where it wants none."""
    if isinstance(listener, ByKind):
        return listener.handlers.get(kind)
    kinds = getattr(listener, "KINDS", None)
    return listener.on_event if kinds is None or kind in kinds else None
