import copy
import inspect

from tinkex_proxy import errors
from tinkex_proxy.errors import ProxyError, UpstreamFailed

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_every_class_is_exported_and_has_a_code_of_its_own() -> None:
    defined = {c for _, c in inspect.getmembers(errors, inspect.isclass)}
    assert defined == set(CLASSES)
    assert len({c.code for c in CLASSES}) == len(CLASSES)


def test_a_copy_is_another_error_that_says_the_same() -> None:
    """The callers of a batch each get a copy: one may add to its own without telling the others."""
    for cls in CLASSES:
        error = cls("Because.")
        error.retry_after_s, error.pointer = 3.0, "/a"
        twin = copy.copy(error)
        twin.detail += " And more."
        assert type(twin) is cls
        assert (error.detail, twin.retry_after_s, twin.pointer) == ("Because.", 3.0, "/a")


def test_a_failed_request_keeps_its_category() -> None:
    assert copy.copy(UpstreamFailed("x", category="user")).category == "user"
    assert str(ProxyError("What happened.")) == "What happened."
