"""Each measurement says what its target is and what one round of it does."""

from collections.abc import Callable

import pytest

from tinkex_proxy.runtime.malloc import keep_memory

keep_memory()  # as `serve` does


@pytest.fixture
def measure(benchmark) -> Callable[..., object]:
    """Measure `work`, which does `units` of what `target` is about."""

    def run(work: Callable[[], object], *, target: float | None, unit: str, units: float) -> object:
        benchmark.extra_info.update(target=target, unit=unit, units=units)
        return benchmark(work)

    return run
