"""Driving a server with wrk: one thread, so many connections, each with one request at a time."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.compare.calls import Call
from tests.e2e.environments import of_debian

WRK = ("usr/bin/wrk", "wrk")
# How long a call may take; a slower one is counted as an error.
TIMEOUT_S = 20
_MARK = "counted"
_SCRIPT = """
local file = assert(io.open("{body}", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "{content_type}"
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("{mark} %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a run of wrk came to.

    Attributes:
        requests: how many were answered.
        seconds: how long it ran.
        p50_ms: half of them took no longer.
        p99_ms: all but one in a hundred took no longer.
        refused: how many of the answers were 400 and above.
        broken: connections that failed, broke off or timed out.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int


def drive(url: str, call: Call, connections: int, seconds: int, folder: Path) -> Counted:
    """Make a call over and over.

    Args:
        url: of the server.
        call: what is called.
        connections: how many call at once.
        seconds: for how long.
        folder: where script and body may be written.
    """
    body, script = folder / "body", folder / "script.lua"
    body.write_bytes(call.body)
    script.write_text(_SCRIPT.format(body=body, content_type=call.content_type, mark=_MARK))
    program = str(of_debian(*WRK))
    options = ["-t1", f"-c{connections}", f"-d{seconds}", "--timeout", f"{TIMEOUT_S}s"]
    command = [program, *options, "-s", str(script), url + call.path]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + 60
    )
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            requests, took_us, p50_us, p99_us, refused, broken = map(int, line.split()[1:])
            return Counted(requests, took_us / 1e6, p50_us / 1e3, p99_us / 1e3, refused, broken)
    raise RuntimeError(f"{' '.join(command)} said {done.stdout + done.stderr}")
