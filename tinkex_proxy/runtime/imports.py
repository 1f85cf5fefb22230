"""Importing much, quickly.

What start-up imports makes some 130,000 objects, and nearly all live as long as the process. The
collector looks at them again and again while they are made, for nothing: an eighth of start-up.
And some of it is only imported because it is there: libraries look for others that they could make
use of, and we have none.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator

__all__ = ["absent", "uncollected"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage inside, and never look again at what was made until the end of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def absent(*modules: str) -> Iterator[None]:
    """Inside, modules that are not loaded yet are as if they were not installed.

    Args:
        modules: their full names.
    """
    hidden = [name for name in modules if name not in sys.modules]
    # Python's own way to say that there is none: importing it raises ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
