"""Whose work something is, is a value: logs and spans of two calls cannot be mixed up."""

from tinkex_proxy.runtime.whose import Whose


def test_two_calls_of_one_key_are_told_apart() -> None:
    assert Whose("r1", "k") == Whose("r1", "k", None)
    assert Whose("r1", "k") != Whose("r2", "k")
