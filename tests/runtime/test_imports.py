import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinkex_proxy.runtime.imports import absent, uncollected


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One that can be imported, and is not yet."""
    name = "there_to_be_imported"
    (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_nothing_is_collected_inside_and_what_was_made_is_not_looked_at_again() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        made = [{"of": number} for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_the_collector_is_back_after_an_import_that_failed() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_who_wants_no_collector_gets_none() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_a_module_is_absent_inside_and_there_afterwards(module: str) -> None:
    with absent(module), pytest.raises(ModuleNotFoundError):
        importlib.import_module(module)
    assert module not in sys.modules
    importlib.import_module(module)


def test_a_module_that_is_loaded_stays(module: str) -> None:
    loaded = importlib.import_module(module)
    with absent(module):
        assert importlib.import_module(module) is loaded
    assert sys.modules[module] is loaded


def test_a_module_is_there_again_after_an_error(module: str) -> None:
    with pytest.raises(ZeroDivisionError), absent(module):
        _ = 1 / 0
    importlib.import_module(module)
