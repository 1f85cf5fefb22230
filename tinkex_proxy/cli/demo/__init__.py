"""`demo`: the whole thing at once, with no key and no network.

It starts the sandbox upstream and a proxy as children in its own process group, trains a small
model on four lines of verse through plain HTTP calls, four callers at a time, and shows what
happened: the loss as it falls, a sample before and after, how many upstream requests the calls
became, and `curl` lines for the model that was just trained.

`--once` is the same for a machine: the exit status says whether the loss fell to half or less.

`--chaos` trains the model twice, undisturbed and then through a burst of faults and an outage of
the sandbox, tells what the circuit breaker did, and compares losses and weights.
"""

import argparse
from typing import Final

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.extras import needing_the_sandbox_extra
from tinkex_proxy.cli.options import USAGE_ERROR, Commands

__all__ = ["add"]

DEFAULT_STEPS: Final = 60
# A quarter of them each: calm, burst, calm, outage.
LEAST_CHAOS_STEPS: Final = 8


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="train a small model through the proxy on this machine; needs no key",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="end after the training; status 0 when the loss has fallen to half or less",
    )
    parser.add_argument(
        "--steps",
        type=_count,
        default=DEFAULT_STEPS,
        metavar="N",
        help=f"optimizer steps [{DEFAULT_STEPS}]",
    )
    parser.add_argument(
        "--port", type=int, metavar="PORT", help="the proxy's port [8465, or a free one]"
    )
    parser.add_argument(
        "--chaos",
        action="store_true",
        help="train through a burst of faults and an outage, and show that nothing was lost or "
        "counted twice; with --once, status 0 only when the weights equal an undisturbed run's",
    )
    parser.set_defaults(run=_run)


def _count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.chaos and chosen.steps < LEAST_CHAOS_STEPS:
        told = f"--chaos needs --steps {LEAST_CHAOS_STEPS} or more, and got {chosen.steps}"
        raise CommandError(told, status=USAGE_ERROR)
    with needing_the_sandbox_extra("demo"):
        import numpy  # noqa: F401, ICN001, PLC0415 - the sandbox child needs it: say so before

        from tinkex_proxy.cli.demo import show  # noqa: PLC0415 - rich and plotext, when needed

    return show.run(steps=chosen.steps, once=chosen.once, port=chosen.port, chaotic=chosen.chaos)
