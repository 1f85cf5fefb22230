"""Promises: kept once, told often, forgotten only when there are too many."""

import pytest

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.futures import Gone, Promises


async def test_a_result_can_be_asked_for_again_and_again() -> None:
    promises = Promises(10)
    promise = promises.make("m")
    assert await promises.wait(promise, 0) is None
    promise.keep({"a": 1})
    for _ in range(2):
        assert await promises.wait(promises.find(promise.request_id), 0) == {"a": 1}


async def test_the_first_result_stays() -> None:
    """A model may end while its work runs: the caller was told that it is gone."""
    promise = Promises(10).make()
    promise.keep(Gone("ended"))
    promise.keep({"a": 1})
    assert promise.result == Gone("ended")


def test_the_oldest_is_forgotten_and_known_to_have_been() -> None:
    promises = Promises(2)
    first, second, third = (promises.make() for _ in range(3))
    assert promises.find(second.request_id) is second
    assert promises.find(third.request_id) is third
    with pytest.raises(BadRequest, match="gone") as refused:
        promises.find(first.request_id)
    assert refused.value.status == 410


@pytest.mark.parametrize("request_id", ["0", "2", "-1", "abc", "", "²"])
def test_what_was_never_made_is_not_found(request_id: str) -> None:
    promises = Promises(2)
    promises.make()
    with pytest.raises(BadRequest) as refused:
        promises.find(request_id)
    assert refused.value.status == 404
