"""All API keys in use, each with an account of its own.

A key is known to the rest of the program by its `key_id`: a BLAKE2 hash keyed with a random salt,
so that it cannot be guessed back from a log. The salt is the journal's, where there is one, so that
a key has the same name after a restart; the key itself is never written anywhere. The configured
key serves callers that send none; a caller's own key is used for that caller and nobody else.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from tinkex_proxy.errors import ApiKeyMissing, TooManyKeys
from tinkex_proxy.runtime.account import Account

__all__ = ["Accounts"]

# Public names that are remembered: of so many keys, no longer than keys are.
MAX_KEY_IDS: Final = 256
MAX_KEY_LENGTH: Final = 255


class Accounts:
    """The accounts at one upstream.

    Args:
        make: builds the account of a key (None: the upstream wants none).
        default_key: the configured key, or None.
        key_required: whether the upstream is known to refuse callers without a key.
        max_keys: accounts held at once; the idlest gives way to a new one.
        salt: of the keys' public names.
    """

    def __init__(
        self,
        make: Callable[[str, str | None], Account],
        *,
        default_key: str | None,
        key_required: bool,
        max_keys: int,
        salt: bytes,
    ) -> None:
        self._make = make
        self._default_key = default_key
        self._key_required = key_required
        self._max_keys = max_keys
        self._salt = salt
        self._accounts: dict[str, Account] = {}
        self._key_ids: dict[str, str] = {}  # every call asks

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    def reconfigure(self, *, max_keys: int) -> None:
        """Hold at most so many; those above it stay until a new key wants their place."""
        self._max_keys = max_keys

    def of(self, sent_key: str | None) -> Account:
        """The account of a caller who sent this key, or none.

        Raises:
            ApiKeyMissing: nobody has a key and the upstream wants one.
            TooManyKeys: every account held is in use.
        """
        key = sent_key or self._default_key
        if key is None and self._key_required:
            raise ApiKeyMissing(
                "No API key: set TINKEX_PROXY_UPSTREAM__API_KEY (or TINKER_API_KEY) for the proxy, "
                "or send yours in X-API-Key."
            )
        key_id = self.key_id(key)
        account = self._accounts.pop(key_id, None)
        if account is None:
            self._make_room()
            account = self._make(key_id, key)
        self._accounts[key_id] = account  # the most recently used is last
        return account

    def of_default(self) -> Account:
        """The account of the configured key, for what the proxy asks on its own behalf."""
        key_id = self.key_id(self._default_key)
        if key_id not in self._accounts:
            self._accounts[key_id] = self._make(key_id, self._default_key)
        return self._accounts[key_id]

    def key_id_of(self, sent_key: str | None) -> str:
        """The public name of the key that serves a caller who sent this one, or none."""
        return self.key_id(sent_key or self._default_key)

    def key_id(self, key: str | None) -> str:
        """The public name of a key."""
        if key is None:
            return "none"
        found = self._key_ids.get(key)
        if found is None:
            found = hashlib.blake2b(key.encode(), key=self._salt, digest_size=4).hexdigest()
            if len(self._key_ids) >= MAX_KEY_IDS:  # callers may send any
                self._key_ids.clear()
            if len(key) <= MAX_KEY_LENGTH:
                self._key_ids[key] = found
        return found

    def _make_room(self) -> None:
        if len(self._accounts) < self._max_keys:
            return
        for account in self:
            account.sweep()
        idle = [key_id for key_id, account in self._accounts.items() if account.idle]
        for key_id in idle[: len(self._accounts) - self._max_keys + 1]:
            self._accounts.pop(key_id).close()
        if len(self._accounts) >= self._max_keys:
            raise TooManyKeys(
                f"{self._max_keys} API keys have live models or running calls here already. "
                "Delete models you no longer train, or raise upstream.max_keys.",
                retry_after_s=30.0,
            )
