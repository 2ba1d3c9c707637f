"""The headers that prove where a webhook comes from: Standard Webhooks, and Creem's signature beside them.

Both are HMAC-SHA256. Standard Webhooks signs id, time and body with the key that the secret holds in base64; Creem's
signs the body with the text of the secret. For a day after a secret was changed the old one signs as well.
"""

from __future__ import annotations

import hmac
from datetime import datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from ...schemas.errors import SecretUnreadable


class Signer:
    """Signs for one endpoint.

    Raises:
        SecretUnreadable: a secret holds no key.
    """

    def __init__(self, secret: str, previous_secret: str | None = None) -> None:
        secrets = [secret] if previous_secret is None else [secret, previous_secret]
        self._webhooks = [_webhook(each) for each in secrets]
        self._keys = [each.encode() for each in secrets]

    def headers(self, event_id: str, now: datetime, body: str) -> dict[str, str]:
        """Return the headers for this attempt; `now` must be in UTC."""
        signatures = [webhook.sign(event_id, now, body) for webhook in self._webhooks]
        raw = body.encode()
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
            "creem-signature": hmac.digest(self._keys[0], raw, "sha256").hex(),
        }
        if len(self._keys) > 1:
            headers["creem-signature-previous"] = hmac.digest(self._keys[1], raw, "sha256").hex()
        return headers


def _webhook(secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        # No base64, or nothing in it: written by hand.
        raise SecretUnreadable from None
