"""The signing secrets of webhooks as they are kept: sealed under a key of the operator's, or in the clear without one.

A sealed secret is `whsec_sealed.` and a token of Fernet (AES-128-CBC with HMAC-SHA256). None in the clear has a dot.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import ConfigurationError, SecretUnreadable
from .events import SECRET_PREFIX
from .settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

#: What every sealed secret begins with; as all secrets it begins with their own prefix.
SEALED_PREFIX = SECRET_PREFIX + "sealed."
#: The same, as `like` has it.
SEALED_PATTERN = SEALED_PREFIX.replace("_", "\\_") + "%"
SETTING = "CREDITLANE_WEBHOOK_SECRET_KEYS"


class SecretKeys:
    """The operator's keys. The first one seals, all of them open."""

    def __init__(self, text: str = "") -> None:
        """Take the keys from the setting.

        Raises:
            ConfigurationError: one of them is no key; the message does not have it.
        """
        self._keys = [_key(part) for part in (each.strip() for each in text.split(",")) if part]

    def __bool__(self) -> bool:
        """Whether there is a key, so that secrets are sealed."""
        return bool(self._keys)

    def seal(self, secret: str) -> str:
        """Return the secret as it is kept."""
        if not self._keys:
            return secret
        return SEALED_PREFIX + self._keys[0].encrypt(secret.encode()).decode()

    def open(self, kept: str) -> str:
        """Return the secret.

        Raises:
            SecretUnreadable: it was sealed under none of the keys.
        """
        if not is_sealed(kept):
            return kept
        for key in self._keys:
            opened = _opened(key, kept)
            if opened is not None:
                return opened
        raise SecretUnreadable

    def is_current(self, kept: str) -> bool:
        """Return whether the secret is kept as it would be kept now."""
        if not self._keys:
            return not is_sealed(kept)
        return is_sealed(kept) and _opened(self._keys[0], kept) is not None


def secret_keys(settings: Settings) -> SecretKeys:
    """Return the keys of the settings.

    Raises:
        ConfigurationError: one of them is no key.
    """
    return _keys_of(settings.webhook_secret_keys)


@lru_cache(maxsize=8)
def _keys_of(text: str) -> SecretKeys:
    # The API asks for every request.
    return SecretKeys(text)


def is_sealed(kept: str) -> bool:
    """Return whether the secret is kept sealed."""
    return kept.startswith(SEALED_PREFIX)


def new_key() -> str:
    """Return a key that nobody knows yet."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def _key(text: str) -> Fernet:
    # Heavy, and most clients have no key.
    from cryptography.fernet import Fernet

    try:
        return Fernet(text)
    except ValueError:
        raise ConfigurationError(
            f"{SETTING}: a key is no 32 bytes in URL-safe base64; `creditlane webhooks new-key` makes one"
        ) from None


def _opened(key: Fernet, kept: str) -> str | None:
    from cryptography.fernet import InvalidToken

    try:
        return key.decrypt(kept.removeprefix(SEALED_PREFIX)).decode()
    except (InvalidToken, ValueError):
        # Also what is no token at all, as of letters that no token has.
        return None
