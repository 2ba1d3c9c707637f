"""Secrets of webhooks are sealed under the operator's first key and opened by all of them."""

import pytest
from cryptography.fernet import Fernet

from creditlane.schemas.errors import ConfigurationError, SecretUnreadable
from creditlane.schemas.events import SECRET_PREFIX, new_secret
from creditlane.schemas.settings import Settings
from creditlane.schemas.webhook_secrets import SETTING, SecretKeys, is_sealed, new_key, secret_keys

OLD, NEW = new_key(), new_key()


def test_without_a_key_secrets_stay_as_they_are() -> None:
    secret, keys = new_secret(), SecretKeys()

    assert (keys.seal(secret), keys.open(secret), bool(keys)) == (secret, secret, False)
    assert keys.is_current(secret)


def test_a_sealed_secret_shows_nothing_and_is_opened_by_its_key() -> None:
    secret, keys = new_secret(), SecretKeys(NEW)

    kept = keys.seal(secret)

    assert is_sealed(kept)
    assert kept.startswith(SECRET_PREFIX)
    assert secret.removeprefix(SECRET_PREFIX) not in kept
    assert keys.seal(secret) != kept
    assert keys.open(kept) == secret
    assert keys.open(secret) == secret


def test_the_first_key_seals_and_all_open() -> None:
    secret = new_secret()
    before = SecretKeys(OLD).seal(secret)
    keys = SecretKeys(f" {NEW} , {OLD},")

    assert keys.open(before) == secret
    assert SecretKeys(NEW).open(keys.seal(secret)) == secret
    assert [keys.is_current(kept) for kept in (before, keys.seal(secret), secret)] == [False, True, False]


@pytest.mark.parametrize("keys", ["", OLD], ids=["none", "another"])
def test_without_its_key_a_sealed_secret_is_an_error_that_names_the_setting(keys: str) -> None:
    kept = SecretKeys(NEW).seal(new_secret())

    with pytest.raises(SecretUnreadable, match=SETTING):
        SecretKeys(keys).open(kept)


def test_a_sealed_secret_that_was_changed_is_not_opened() -> None:
    kept = SecretKeys(NEW).seal(new_secret())
    changed = kept[:-10] + ("A" if kept[-10] != "A" else "B") + kept[-9:]

    with pytest.raises(SecretUnreadable):
        SecretKeys(NEW).open(changed)


@pytest.mark.parametrize(
    "text",
    ["short", f"{NEW},hunter2", "ä" * 44, Fernet.generate_key().decode()[:-2]],
    ids=["short", "one of two", "not ASCII", "cut"],
)
def test_what_is_no_key_is_an_error_that_names_the_setting_and_shows_nothing(text: str) -> None:
    with pytest.raises(ConfigurationError, match=SETTING) as caught:
        secret_keys(Settings(webhook_secret_keys=text))

    assert "hunter2" not in str(caught.value)
    assert NEW not in repr(Settings(webhook_secret_keys=text))
