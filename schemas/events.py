"""The events that webhooks send, and the ids of events and endpoints. No driver, no HTTP."""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from typing import Literal, get_args
from uuid import UUID

#: What an endpoint can subscribe to.
EventType = Literal[
    "credits.granted",
    "credits.consumed",
    "credits.reversed",
    "account.created",
    "account.frozen",
    "account.unfrozen",
    "account.closed",
    "account.limit_changed",
    "balance.low",
    "hold.created",
    "hold.captured",
    "hold.voided",
    "hold.extended",
    "hold.expired",
    "command.rejected",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

#: Sent on request, to any endpoint.
TEST_EVENT = "webhook.test"
#: Sent to the URL that came with a command; a rejected one is sent as `command.rejected`.
COMMAND_APPLIED = "command.applied"
COMMAND_REJECTED = "command.rejected"
COMMAND_DEAD_LETTERED = "command.dead_lettered"

EVENT_PREFIX = "evt_"
ENDPOINT_PREFIX = "wh_"
SECRET_PREFIX = "whsec_"  # noqa: S105  # what every secret begins with
#: Key bytes in a secret; Standard Webhooks asks for 24 to 64.
SECRET_BYTES = 32

#: Longest URL of an endpoint or callback, in characters.
MAX_URL_CHARACTERS = 2_000


def event_id(store_id: int, account_id: str, seq: int, event_type: str) -> UUID:
    """Return the id of the event of this journal row: always the same, so that a repetition is known as one."""
    seed = f"{store_id}\0{account_id}\0{seq}\0{event_type}".encode()
    return UUID(bytes=hashlib.blake2b(seed, digest_size=16, person=b"creditlane-evnt").digest())


def callback_event_id(store_id: int, account_id: str, idempotency_key: str, url: str) -> UUID:
    """Return the id under which the result of this command is sent to this URL."""
    seed = f"{store_id}\0{account_id}\0{idempotency_key}\0{url}".encode()
    return UUID(bytes=hashlib.blake2b(seed, digest_size=16, person=b"creditlane-call").digest())


def public_event_id(identifier: UUID) -> str:
    """Return the id as it is shown."""
    return EVENT_PREFIX + identifier.hex


def public_endpoint_id(identifier: UUID) -> str:
    """Return the id as it is shown."""
    return ENDPOINT_PREFIX + identifier.hex


def uuid_of(public_id: str, prefix: str) -> UUID | None:
    """Return what a shown id stands for, or None if it is none of this prefix."""
    match = re.fullmatch(r"([a-z]+_)([0-9a-f]{32})", public_id)
    return UUID(match[2]) if match is not None and match[1] == prefix else None


def new_secret() -> str:
    """Return a signing secret that nobody knows yet."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
