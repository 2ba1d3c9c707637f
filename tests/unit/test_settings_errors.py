"""A setting that is wrong is named as whoever set it calls it, with what is allowed and without what it says."""

import pytest

from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.settings import load_settings


def test_every_wrong_variable_is_named_with_what_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_LEASE_SECONDS", "soon")
    monkeypatch.setenv("CREDITLANE_BATCH_LIMIT", "-1")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    first, second = sorted(caught.value.message.split("; "))
    assert first == "CREDITLANE_BATCH_LIMIT: Input should be greater than or equal to 1"
    assert second.startswith("CREDITLANE_LEASE_SECONDS: Input should be a valid number")
    assert "soon" not in caught.value.message


def test_what_was_given_instead_of_a_variable_is_named_as_it_was_given() -> None:
    with pytest.raises(ConfigurationError, match=r"^store: String should match pattern"):
        load_settings(store="none such")
