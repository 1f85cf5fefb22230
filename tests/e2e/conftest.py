"""One upstream and one proxy per module and generation; one table of measurements per run."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.environments import build_all
from tests.e2e.measurement import Report
from tests.e2e.plain import Plain, connected
from tests.e2e.processes import Server
from tests.e2e.servers import GENERATIONS, Generation, proxy, skyrl


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests by their SkyRL server, whatever file they are in: each is started once."""
    items.sort(key=_place_of_server)


def _place_of_server(item: pytest.Item) -> int:
    """Tests without one come first."""
    assert isinstance(item, pytest.Function)
    generation = item.callspec.params.get("generation") if hasattr(item, "callspec") else None
    return GENERATIONS.index(generation) if isinstance(generation, Generation) else -1


@pytest.fixture(scope="session", autouse=True)
def _environments() -> None:
    """Build what is missing before the first test, side by side."""
    build_all()


@pytest.fixture(scope="session", params=GENERATIONS, ids=lambda generation: generation.label)
def generation(request: pytest.FixtureRequest) -> Generation:
    return request.param


@pytest.fixture(scope="session")
def upstream(generation: Generation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a SkyRL server; pytest groups tests by it, so that only one is up at a time."""
    with skyrl(generation, tmp_path_factory.mktemp("skyrl")) as server:
        yield server


@pytest.fixture(scope="session")
def proxied(upstream: Server) -> Iterator[Server]:
    with proxy(upstream.url) as server:
        yield server


@pytest.fixture
async def plain(proxied: Server) -> AsyncIterator[Plain]:
    async with connected(proxied.url) as client:
        yield client


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """Collect the measurements of all generations; print and write them when all are done."""
    collected = Report()
    yield collected
    collected.publish()
