"""What is signed can be verified by the packages that receivers use, and by hand."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from creditlane.schemas.events import new_secret
from creditlane.worker.webhooks.signing import Signer

BODY = '{"id":"evt_1","name":"Größe 💳"}'


def test_standard_webhooks_verifies() -> None:
    secret = new_secret()

    headers = Signer(secret).headers("evt_1", datetime.now(UTC), BODY)

    assert Webhook(secret).verify(BODY.encode(), headers)["id"] == "evt_1"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.encode() + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY.encode(), headers)


def test_the_signatures_are_what_their_documents_say() -> None:
    secret = new_secret()
    at = datetime(2026, 3, 1, 12, 0, 0, 999_000, tzinfo=UTC)

    headers = Signer(secret).headers("evt_1", at, BODY)

    stamp = "1772366400"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"evt_1.{stamp}.{BODY}".encode(), hashlib.sha256).digest()
    assert headers == {
        "webhook-id": "evt_1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        "creem-signature": hmac.new(secret.encode(), BODY.encode(), hashlib.sha256).hexdigest(),
    }


def test_after_a_change_both_secrets_sign() -> None:
    new, old = new_secret(), new_secret()

    headers = Signer(new, old).headers("evt_1", datetime.now(UTC), BODY)

    assert Webhook(new).verify(BODY, headers)
    assert Webhook(old).verify(BODY, headers)
    assert headers["creem-signature"] == hmac.new(new.encode(), BODY.encode(), hashlib.sha256).hexdigest()
    assert headers["creem-signature-previous"] == hmac.new(old.encode(), BODY.encode(), hashlib.sha256).hexdigest()
