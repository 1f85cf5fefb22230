"""`make soak`: a sandbox and a proxy, seven programs that train, and minutes of bad weather.

Rules, each of which fails the soak: every call is answered; every model ends as in an undisturbed
replay of as many rounds (losses, counts, weights, bit for bit); the proxy's tasks and file
descriptors come back to what they were at rest; its memory does not grow in the second half.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.harness import Ending, Stack, caller, stack
from tests.soak.gauges import watch
from tests.soak.programs import Program, programs
from tests.soak.report import PAGE, put, table
from tests.soak.rules import Soak, at_rest, check
from tests.soak.weather import Weather

# Shorter than a user's, so that minutes hold many timeouts and open breakers.
PROXY = (
    *("--upstream.connect-timeout-s", "1", "--upstream.request-timeout-s", "2"),
    *("--upstream.poll-timeout-s", "3", "--upstream.heartbeat-interval-s", "2"),
    *("--circuit-breaker.timeout-ms", "500", "--circuit-breaker.max-timeout-ms", "2000"),
    *("--log.level", "error"),
)
# Beyond every wait between repetitions that is left over from the last outage.
PATIENCE_S = 90.0
# Sooner than many an answer in bad weather.
HANGS_UP_S = 0.1
KILL_EVERY_S = (10.0, 20.0)


async def bad_weather(up: Stack, soak: Soak) -> None:
    """One spell after another, until cancelled."""
    weather = Weather(soak.seed)
    while True:
        spell = weather.next()
        up.faults(*spell.faults, seed=soak.seed + soak.spells)
        soak.spells += 1
        await asyncio.sleep(spell.lasts_s)
        soak.hits += up.hits()


async def power_cuts(up: Stack, soak: Soak) -> None:
    """Kill the proxy now and then in the first half, and start it again on its port and state."""
    draw = random.Random(soak.seed)  # noqa: S311 - must repeat
    ends = time.monotonic() + soak.seconds / 2
    while (wait_s := draw.uniform(*KILL_EVERY_S)) + time.monotonic() < ends:
        await asyncio.sleep(wait_s)
        up.proxy.kill()
        await asyncio.to_thread(up.proxy.start)
        soak.kills += 1


async def trained(up: Stack, logs: Path, rounds: Sequence[int] | None, soak: Soak) -> list[Program]:
    """Run all programs: through the weather, or for so many rounds undisturbed."""
    stop = asyncio.Event()
    async with (
        caller(up.proxy.url, patience_s=PATIENCE_S) as persistent,
        caller(up.proxy.url, patience_s=PATIENCE_S, each_s=HANGS_UP_S) as impatient,
    ):
        all_of_them = programs(persistent, impatient, up.proxy.url, logs)
        wanted: Sequence[int | None] = rounds or [None] * len(all_of_them)
        going = [
            asyncio.create_task(one.run(stop, most))
            for one, most in zip(all_of_them, wanted, strict=True)
        ]
        if rounds is None:
            await _disturb(up, soak, going)
            stop.set()
        ended = await asyncio.gather(*going, return_exceptions=True)
        for one, how in zip(all_of_them, ended, strict=True):
            soak.hold(f"{one.name}: {how!r}", kept=how is None)
        soak.repeated += persistent.repeated + impatient.repeated
    return all_of_them


async def _disturb(up: Stack, soak: Soak, going: Sequence["asyncio.Task[None]"]) -> None:
    """Let things go wrong for the time of the soak, or until a program has ended before it."""
    around = [
        asyncio.create_task(bad_weather(up, soak)),
        asyncio.create_task(watch(up.proxy, soak.readings)),
    ]
    if soak.kills_wanted:
        around.append(asyncio.create_task(power_cuts(up, soak)))
    await asyncio.wait(going, timeout=soak.seconds, return_when=asyncio.FIRST_COMPLETED)
    for one in around:
        one.cancel()
    for how in await asyncio.gather(*around, return_exceptions=True):
        soak.hold(
            f"the soak itself: {how!r}", kept=how is None or isinstance(how, asyncio.CancelledError)
        )
    soak.hits += up.hits()
    up.faults()


def endings(done: Sequence[Program], up: Stack) -> list[Ending | None]:
    """How the programs' models ended."""
    return [None if one.training is None else one.training.ending(up) for one in done]


async def run(soak: Soak, directory: Path) -> None:
    """Do all of it."""
    with stack(directory, proxy=PROXY) as up:
        before = await at_rest(up)
        done = await trained(up, directory, None, soak)
        ended = endings(done, up)
        await check(up, before, soak)
        soak.figures |= {"rounds trained": ", ".join(f"{p.name} {p.rounds}" for p in done)}
    (quiet := directory / "quiet").mkdir()
    with stack(quiet, proxy=PROXY) as up:
        began = time.monotonic()
        again = await trained(up, quiet, [one.rounds for one in done], soak)
        equal = [a == b and a is not None for a, b in zip(ended, endings(again, up), strict=True)]
        soak.figures |= {
            "models equal to an undisturbed replay": f"{sum(equal)} of {len(equal)}",
            "the replay took": f"{time.monotonic() - began:.0f} s",
        }
    for one, same in zip(done, equal, strict=True):
        soak.hold(f"{one.name}: the model differs from the replay's", kept=same)


def main(arguments: Sequence[str]) -> int:
    """Run a soak; the status is 0 when every rule was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of bad weather [600]")
    parser.add_argument("--seed", type=int, default=1, help="of the weather [1]")
    parser.add_argument("--kills", action="store_true", help="kill -9 the proxy now and then")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    chosen = parser.parse_args(arguments)
    soak = Soak(chosen.seconds, chosen.kills, chosen.seed)
    directory = tempfile.mkdtemp(prefix="tinkex-proxy-soak-")
    asyncio.run(run(soak, Path(directory)))
    made = table(soak.figures)
    print(made)
    for violation in soak.violations:
        print(f"VIOLATED: {violation}", file=sys.stderr)
    if soak.violations:
        print(f"The logs and the journal are in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    if chosen.write and not soak.violations:
        PAGE.write_text(put(PAGE.read_text(), made))
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
