"""Memory is kept where the C library can be told to, and nothing happens where it cannot."""

import ctypes
import os
import subprocess
import sys

from tinkex_proxy.runtime.malloc import keep_memory

# Page faults of freeing and taking 4 MiB again and again, after it was told or not.
FAULTS = """
import resource, sys
from tinkex_proxy.runtime.malloc import keep_memory
kept = sys.argv[1] == "kept" and keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytes(bytearray(4 << 20))
before = faults()
for _ in range(20):
    bytes(bytearray(4 << 20))
print(int(kept), faults() - before)
"""


def faults(how: str) -> tuple[bool, int]:
    # as it is without variables of glibc's own
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_large_blocks_are_not_taken_from_the_kernel_again_and_again() -> None:
    """Where the C library is glibc."""
    kept, count = faults("kept")
    assert not kept or count < faults("not")[1] / 4


def test_elsewhere_nothing_is_done(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()


def test_a_c_library_without_it_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_memory()
