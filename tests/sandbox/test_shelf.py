"""The shelf: what was saved, under which path, and who samples from it."""

import numpy as np
import pytest

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.model import Base
from tinkex_proxy.sandbox.shelf import Shelf
from tinkex_proxy.sandbox.trainer import Checkpoint, Trained


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"b": Base(0)})


@pytest.fixture
def saved() -> Checkpoint:
    return Trained(Base(0), "b", 2, 5).save(optimizer=True)


def refused(act) -> int:
    with pytest.raises(BadRequest) as error:
        act()
    return error.value.status


def test_a_path_is_taken_unless_it_is_to_be_overwritten(shelf, saved) -> None:
    shelf.put("tinker://m/weights/a", saved, overwrite=False)
    assert refused(lambda: shelf.put("tinker://m/weights/a", saved, overwrite=False)) == 409
    other = Trained(Base(0), "b", 2, 6).save(optimizer=True)
    shelf.put("tinker://m/weights/a", other, overwrite=True)
    assert shelf.get("tinker://m/weights/a") is other


def test_paths_are_told_for_one_model_or_for_all(shelf, saved) -> None:
    for path in ("tinker://m/weights/a", "tinker://m2/weights/a", "tinker://m/weights/b"):
        shelf.put(path, saved, overwrite=False)
    assert shelf.paths("m") == ["tinker://m/weights/a", "tinker://m/weights/b"]
    assert len(shelf.paths()) == 3


def test_what_is_removed_is_gone(shelf, saved) -> None:
    shelf.put("tinker://m/weights/a", saved, overwrite=False)
    shelf.remove("tinker://m/weights/a")
    assert refused(lambda: shelf.get("tinker://m/weights/a")) == 404
    assert refused(lambda: shelf.remove("tinker://m/weights/a")) == 404


def test_a_sampler_has_the_weights_that_were_saved(shelf, saved) -> None:
    shelf.put("tinker://m/sampler_weights/a", saved, overwrite=False)
    sampler = shelf.open_saved("s", "tinker://m/sampler_weights/a")
    assert shelf.sampler("s") is sampler
    assert sampler.adapter.weights is saved.weights
    assert refused(lambda: shelf.sampler("other")) == 404


def test_a_sampler_of_a_base_model_gives_what_an_untrained_model_gives(shelf) -> None:
    tokens = np.array([1, 2])
    untrained = Trained(Base(0), "b", 4, 3).adapter.forward(tokens).logprobs
    assert (shelf.open_base("s", "b").adapter.forward(tokens).logprobs == untrained).all()
    assert refused(lambda: shelf.open_base("s", "other")) == 404


def test_clients_that_join_a_sampler_are_numbered(shelf) -> None:
    sampler = shelf.open_base("s", "b")
    assert [sampler.join(), sampler.join()] == [1, 2]
