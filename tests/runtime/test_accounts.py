import secrets

import pytest

from tinkex_proxy.errors import ApiKeyMissing, TooManyKeys
from tinkex_proxy.runtime.accounts import MAX_KEY_IDS, Accounts


class Made:
    def __init__(self, key_id: str, key: str | None) -> None:
        self.key_id, self.key, self.idle, self.closed = key_id, key, True, False
        self.swept = 0

    def sweep(self) -> None:
        self.swept += 1

    def close(self) -> None:
        self.closed = True


def accounts(**more: object) -> Accounts:
    options = {"default_key": "tml-ours", "key_required": False, "max_keys": 2, **more}
    options.setdefault("salt", secrets.token_bytes(16))
    return Accounts(Made, **options)


def test_a_callers_own_key_serves_that_caller_and_nobody_else() -> None:
    registry = accounts()
    assert registry.of("tml-mine").key == "tml-mine"
    assert registry.of(None).key == "tml-ours"
    assert registry.of("tml-ours") is registry.of(None) is registry.of_default()


def test_a_key_id_tells_nothing_and_differs_between_salts() -> None:
    one, other = accounts(), accounts()
    assert one.key_id("tml-a") == one.key_id("tml-a") != one.key_id("tml-b")
    assert one.key_id("tml-a") != other.key_id("tml-a")
    assert "tml" not in one.key_id("tml-a")
    assert one.key_id(None) == "none"


def test_names_are_remembered_within_bounds() -> None:
    """Callers may send any key, and any number of them."""
    registry = accounts()
    names = {registry.key_id(str(number)) for number in range(3 * MAX_KEY_IDS)}
    assert len(names) == 3 * MAX_KEY_IDS
    long = "k" * 10_000
    assert registry.key_id(long) == registry.key_id(long)
    assert len(registry._key_ids) <= MAX_KEY_IDS
    assert long not in registry._key_ids


def test_a_key_has_the_same_name_under_the_same_salt() -> None:
    assert accounts(salt=b"s" * 16).key_id("tml-a") == accounts(salt=b"s" * 16).key_id("tml-a")


def test_the_key_id_of_a_caller_is_known_before_there_is_an_account() -> None:
    registry = accounts()
    assert registry.key_id_of("tml-mine") == registry.key_id("tml-mine")
    assert registry.key_id_of(None) == registry.key_id("tml-ours")
    assert len(registry) == 0


def test_no_key_at_all() -> None:
    assert accounts(default_key=None).of(None).key is None
    with pytest.raises(ApiKeyMissing, match="X-API-Key"):
        accounts(default_key=None, key_required=True).of(None)


def test_the_idlest_account_gives_way_to_a_new_one() -> None:
    registry = accounts()
    first, second = registry.of("a"), registry.of("b")
    registry.of("a")
    registry.of("c")
    assert (first.closed, second.closed, len(registry)) == (False, True, 2)


def test_accounts_with_live_models_stay() -> None:
    registry = accounts()
    for key in ("a", "b"):
        registry.of(key).idle = False
    with pytest.raises(TooManyKeys, match="max_keys"):
        registry.of("c")


def test_our_own_questions_make_the_default_account_once() -> None:
    registry = accounts()
    assert registry.of_default() is registry.of_default()
    assert len(registry) == 1


def test_another_bound_holds_from_the_next_new_key_on() -> None:
    registry = accounts()
    registry.of("a"), registry.of("b")
    registry.reconfigure(max_keys=3)
    assert not registry.of("a").closed
    registry.of("c")
    assert len(registry) == 3


def test_who_is_above_the_bound_goes_when_a_new_key_comes() -> None:
    """It was lowered, or our own question came to a full house."""
    registry = accounts(max_keys=4)
    held = [registry.of(key) for key in "abcd"]
    registry.reconfigure(max_keys=2)
    registry.of("e")
    assert [account.closed for account in held] == [True, True, True, False]
    assert len(registry) == 2
    registry.of_default()
    registry.of("f")
    assert len(registry) == 2
