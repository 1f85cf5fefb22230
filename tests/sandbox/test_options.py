"""Options."""

import pytest

from tinkex_proxy.sandbox.options import FLAVOURS, Options


@pytest.mark.parametrize("flavours", FLAVOURS)
def test_flavours_are_one_of_a_few(flavours: str) -> None:
    assert Options(flavours=flavours).flavours == flavours


def test_another_flavour_is_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match="'protobof'; it is one of both, protobuf, json"):
        Options(flavours="protobof")


def test_the_models_names_say_that_they_are_of_a_sandbox() -> None:
    assert all(name.startswith("sandbox/") for name in Options().models)
