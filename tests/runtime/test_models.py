import asyncio

import pytest

from tinkex_proxy.errors import ModelGone
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.models import Model, Sampler
from tinkex_proxy.runtime.work import Order

STEP = Order("/api/v1/optim_step", {})
SAVE = Order("/api/v1/save_weights", {})


class Driver:
    later = None
    model_id = "m"

    def __init__(self) -> None:
        self.put_works: list[object] = []
        self.closed: list[Exception] = []

    def put(self, works, *, deadline, origin, part):
        self.put_works += works
        return []

    def close(self, error) -> None:
        self.closed.append(error)


@pytest.fixture
def model() -> Model:
    return Model({"model_id": "m"}, session_id="s", driver=Driver(), book=Book())


def test_a_sampler_counts_its_own_requests() -> None:
    sampler = Sampler("x")
    assert [sampler.take_seq(), sampler.take_seq(), sampler.take_seq()] == [0, 1, 2]


def test_a_model_that_is_gone_takes_nothing_and_says_why_once(model: Model) -> None:
    model.end("first reason")
    model.end("second reason")
    assert [str(error) for error in model.driver.closed] == ["first reason"]
    with pytest.raises(ModelGone, match="first reason"):
        model.put([STEP], deadline=None)


async def made(sampler: Sampler | Exception) -> Sampler:
    if isinstance(sampler, Exception):
        raise sampler
    return sampler


async def test_a_sampler_is_good_until_the_weights_change(model: Model) -> None:
    assert model.present_sampler() is None
    making = asyncio.ensure_future(made(Sampler("x")))
    model.show(making)
    assert model.present_sampler() is making
    await making
    model.put([SAVE], deadline=None)
    assert model.present_sampler() is making
    model.put([STEP], deadline=None)
    assert model.present_sampler() is None


async def test_a_sampler_that_could_not_be_made_is_made_anew(model: Model) -> None:
    failing = asyncio.ensure_future(made(ValueError("no")))
    model.show(failing)
    await asyncio.wait([failing])
    assert model.present_sampler() is None
    cancelled = asyncio.ensure_future(asyncio.Event().wait())
    cancelled.cancel()
    await asyncio.wait([cancelled])
    model.show(cancelled)
    assert model.present_sampler() is None
