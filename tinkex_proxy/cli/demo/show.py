"""The demo, scene by scene."""

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from tinkex_proxy.cli.demo.chaos import PROXY_ARGUMENTS, Chaos
from tinkex_proxy.cli.demo.children import Child
from tinkex_proxy.cli.demo.family import Family
from tinkex_proxy.cli.demo.recipes import recipes
from tinkex_proxy.cli.demo.screen import Screen
from tinkex_proxy.cli.demo.training import CALL_TIMEOUT_S, VERSES, Run, Step
from tinkex_proxy.cli.exits import FAILED, OK, CommandError

__all__ = ["run"]

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8465
# A real trainer works in cycles; without one the bar would be full before it is seen.
SANDBOX_TICK_MS: Final = "20"
# Whoever ends a demo does not wait for a call of its own.
GRACE_S: Final = "1"
SANDBOX_KEY: Final = "tml-sandbox"
FALLEN_TO: Final = 0.5
# A killed process's connections break a little before its death is told; that explains more.
DEATH_SHOWS_S: Final = 1.0


def run(*, steps: int, once: bool, port: int | None, chaotic: bool = False) -> int:
    """Run the demo.

    Args:
        steps: optimizer steps.
        once: whether to end after the training.
        port: for the proxy; None takes the usual one if it is free.
        chaotic: whether the sandbox fails in the middle, and the outcome is compared.
    """
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="tinkex-proxy-demo-") as logs, Family() as family:
        extra = PROXY_ARGUMENTS if chaotic else ()
        say = _Saying(family, screen)
        url, sandbox_url = _start(family, Path(logs), say, port, extra)

        def scenes() -> bool:
            with _client(url) as client, _client(sandbox_url) as sandbox:
                chaos = Chaos(client, sandbox, screen, steps) if chaotic else None
                return _train(client, url, steps, screen, chaos)

        try:
            fallen = family.attend(scenes)
        except httpx.HTTPError as error:
            family.wait(timeout_s=DEATH_SHOWS_S)
            raise CommandError(f"the proxy does not answer: {error!r}", status=FAILED) from error
        if once:
            return OK if fallen else FAILED
        say()
        say(f"The proxy stays on {url}; its API is described at {url}/docs.", style="bold")
        say("Ctrl-C ends it.")
        return _stay(family, say)


class _Saying:
    """Says something in a thread: where nobody reads it, Ctrl-C is heard all the same.

    Args:
        family: waits for it.
        screen: where it is said.
    """

    def __init__(self, family: Family, screen: Screen) -> None:
        self._family = family
        self._screen = screen

    def __call__(self, text: str = "", *, style: str = "") -> None:
        """Say a line."""
        self._family.attend(lambda: self._screen.say(text, style=style))


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=CALL_TIMEOUT_S, trust_env=False)


def _stay(family: Family, say: _Saying) -> int:
    """Leave everything up until Ctrl-C; a child's death or another signal raises."""
    try:
        family.wait()
    except KeyboardInterrupt:
        say()
        say("Ended.")
    return OK


def _start(
    family: Family, logs: Path, say: _Saying, port: int | None, extra: Sequence[str]
) -> tuple[str, str]:
    """Start both; gives the proxy's URL and the sandbox's."""
    arguments = ["sandbox", "--host", HOST, "--port", "0", "--tick-ms", SANDBOX_TICK_MS]
    sandbox_url = family.start(Child("sandbox", arguments, log=logs / "sandbox.log"))
    say(f"sandbox  {sandbox_url}  a toy model on this CPU, not the Tinker service")
    chosen = _port(say, port)
    arguments = ["serve", "--host", HOST, "--port", str(chosen)]
    arguments += ["--upstream.base-url", sandbox_url, "--calls.shutdown-grace-s", GRACE_S]
    arguments += ["--journal.enabled", "false"]  # the sandbox's models end with it
    arguments += extra
    log = logs / "proxy.log"
    url = family.start(Child("proxy", arguments, log=log, api_key=SANDBOX_KEY))
    say(f"proxy    {url}")
    return url, sandbox_url


def _port(say: _Saying, wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    try:
        socket.create_server((HOST, USUAL_PORT)).close()
    except OSError:
        say(f"Port {USUAL_PORT} is taken, so the proxy gets another one.", style="yellow")
        return 0
    return USUAL_PORT


def _train(client: httpx.Client, url: str, steps: int, screen: Screen, chaos: Chaos | None) -> bool:
    """Train and show it; gives whether it went as it should."""
    if chaos is not None:
        chaos.train_undisturbed()
    training = Run(client)
    screen.say(f"model    {training.model_id} from {training.base_model}")
    screen.say()
    screen.say(f"before   {training.sample()}")
    screen.say()
    done: list[Step] = []
    with screen.progress(steps) as show:
        for step in training.steps(steps):
            done.append(step)
            show(step)
            if chaos is not None:
                chaos.after(step.number)
    screen.say()
    screen.curve([step.loss for step in done])
    screen.say()
    screen.say(f"after    {training.sample()}")
    fallen = _tell(done, url, training.model_id, screen)
    return (chaos is None or chaos.judge(training, done)) and fallen


def _tell(done: list[Step], url: str, model_id: str, screen: Screen) -> bool:
    first, last = done[0].loss, done[-1].loss
    calls, requests = sum(s.calls for s in done), sum(s.requests for s in done)
    fallen = last <= first * FALLEN_TO
    screen.say()
    screen.say(
        f"loss     {first:.3f} before, {last:.3f} after {len(done)} steps"
        f"{'' if fallen else ': it has NOT fallen to half'}",
        style="green" if fallen else "red",
    )
    screen.say(
        f"sharing  {calls} forward_backward calls of {len(VERSES)} concurrent callers "
        f"went upstream as {requests} requests"
    )
    screen.say()
    screen.say("The same with curl:")
    for purpose, line in recipes(url, model_id):
        screen.say(f"# {purpose}", style="dim")
        screen.say(line)
    return fallen
