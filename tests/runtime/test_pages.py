"""A page goes when its request is over and every call on it has been answered; not before."""

import itertools

import msgspec
import pytest

from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import BatchRecord, deleted, written

RECORD = BatchRecord(
    owner="me",
    model_id="m",
    seq_id=1,
    members=(),
    path="/p",
    content_type="a/b",
    accept="a/b",
    identity="i",
    repeatable=True,
    body=b"",
)
GONE = (deleted(RECORD),)


@pytest.mark.parametrize("order", list(itertools.permutations(["over", "a", "b"])))
def test_it_goes_with_the_last_that_kept_it_whatever_the_order(order: tuple[str, ...]) -> None:
    page = Page(RECORD, ["a", "b"])
    came = [page.end() if each == "over" else page.release(each) for each in order]
    assert came == [(), (), GONE]
    assert page.gone


def test_one_that_nobody_needs_goes_when_its_request_is_over() -> None:
    assert Page(RECORD, []).end() == GONE


def test_one_of_a_request_that_was_over_already_goes_with_the_last_call() -> None:
    page = Page(RECORD, ["a"], over=True)
    assert page.release("somebody else") == ()
    assert page.release("a") == GONE


def test_it_goes_once() -> None:
    """Another page may have its name by then: a refused number is used again."""
    page = Page(RECORD, ["a"])
    assert page.tear() == GONE
    assert page.tear() == page.end() == page.release("a") == ()


def test_tearing_asks_nobody() -> None:
    page = Page(RECORD, ["a", "b"])
    assert not page.gone
    assert page.tear() == GONE
    assert page.gone


def test_it_is_written_anew_under_its_name() -> None:
    page = Page(RECORD, ["a"])
    other = msgspec.structs.replace(RECORD, body=b"x")
    assert page.rewrite(other) == written(other)
    assert page.record is other
    assert written(other).key == written(RECORD).key
