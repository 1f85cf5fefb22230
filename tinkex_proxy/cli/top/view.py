"""How somebody looks at it: order, filter, place, pause; and what each key makes of that. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tinkex_proxy.cli.told import Lane

__all__ = ["ORDERS", "View", "pressed", "shown"]

# By what lanes can be sorted, and whether the most comes first.
ORDERS: Final[Mapping[str, tuple[Callable[[Lane], float | str], bool]]] = {
    "name": (lambda lane: lane.model_id, False),
    "waiting": (lambda lane: lane.depth + lane.held_back, True),
    "oldest": (lambda lane: lane.oldest_wait_s or 0.0, True),
    "in flight": (lambda lane: lane.awaiting_results, True),
    "calls": (lambda lane: lane.calls, True),
}
_NAMES: Final = tuple(ORDERS)
_LONGEST_FILTER: Final = 40


@dataclass(frozen=True, slots=True)
class View:
    """What somebody has chosen.

    Attributes:
        order: by what lanes are sorted.
        turned: whether the other way round.
        wanted: what a lane's, breaker's or error's line must hold.
        typing: whether keys go into that.
        paused: whether the picture stands still.
        first: the first lane that is shown.
        over: whether they have had enough.
    """

    order: str = "name"
    turned: bool = False
    wanted: str = ""
    typing: bool = False
    paused: bool = False
    first: int = 0
    over: bool = False


def pressed(view: View, key: str, *, lanes: int) -> View:
    """What a key makes of it.

    Args:
        view: as it was.
        key: a character, or `up`, `down`, `enter`, `escape`, `backspace`.
        lanes: how many there are to go through.
    """
    if view.typing:
        return _typed(view, key)
    if key in {"up", "down"}:
        first = view.first + (1 if key == "down" else -1)
        return replace(view, first=max(0, min(first, lanes - 1)))
    return _KEYS[key](view) if key in _KEYS else view


def _next_order(view: View) -> View:
    following = _NAMES[(_NAMES.index(view.order) + 1) % len(_NAMES)]
    return replace(view, order=following, turned=False, first=0)


def _paused(view: View) -> View:
    return replace(view, paused=not view.paused)


_KEYS: Final[Mapping[str, Callable[[View], View]]] = {
    "q": lambda view: replace(view, over=True),
    "p": _paused,
    " ": _paused,
    "s": _next_order,
    "r": lambda view: replace(view, turned=not view.turned, first=0),
    "/": lambda view: replace(view, typing=True, first=0),
    "escape": lambda view: replace(view, wanted="", first=0),
}


def _typed(view: View, key: str) -> View:
    match key:
        case "enter":
            return replace(view, typing=False)
        case "escape":
            return replace(view, typing=False, wanted="")
        case "backspace":
            return replace(view, wanted=view.wanted[:-1])
        case _ if len(key) == 1 and key.isprintable():
            return replace(view, wanted=(view.wanted + key)[:_LONGEST_FILTER])
        case _:
            return view


def shown(view: View, lanes: list[Lane]) -> list[Lane]:
    """The lanes to be seen, in order."""
    key, most_first = ORDERS[view.order]
    found = [lane for lane in lanes if view.wanted.lower() in lane.model_id.lower()]
    found.sort(key=lambda lane: lane.model_id)
    found.sort(key=key, reverse=most_first is not view.turned)
    return found
