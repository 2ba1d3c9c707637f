"""API keys: how they are made, stored, looked up and revoked. The key itself is stored nowhere.

    cl_<key id: 16 hex>_<secret: 48 hex>

The key id finds the row and may be shown and logged; the SHA-256 of the whole key is what the row holds. A secret of
192 random bits needs no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import psycopg
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict

from ...schemas.errors import InvalidCommand
from .stores import no_store, require_store

_KEY = re.compile(r"cl_([0-9a-f]{16})_[0-9a-f]{48}", re.ASCII)
KEY_ID_BYTES, SECRET_BYTES = 8, 24
#: Longest name of a key, in characters.
MAX_NAME_CHARACTERS = 100

#: Every key with one of these ids that works, by the index on the ids. An id is unique but for a chance of 2^-64.
FIND_KEYS = """
select api_key.key_id, api_key.key_hash, stores.public_id, stores.store_id
from api_keys as api_key join stores on stores.store_id = api_key.store_id
where api_key.key_id = any(%(key_ids)s) and api_key.revoked_at is null
"""

CREATE_KEY = """
insert into api_keys (store_id, key_id, key_hash, name)
select store_id, %(key_id)s, %(key_hash)s, %(name)s from stores where public_id = %(store)s
returning key_id
"""

LIST_KEYS = """
select api_key.key_id, stores.public_id as store_id, api_key.name, api_key.created_at, api_key.revoked_at
from api_keys as api_key join stores on stores.store_id = api_key.store_id
where %(store)s::text is null or stores.public_id = %(store)s
order by api_key.created_at, api_key.key_id
"""

#: The first revocation's moment stays.
REVOKE_KEY = """
update api_keys set revoked_at = coalesce(revoked_at, clock_timestamp()) where key_id = %(key_id)s returning key_id
"""


class KeyRow(NamedTuple):
    """A key that works, as it is stored."""

    key_id: str
    key_hash: bytes
    #: `store_…`.
    public_id: str
    store_id: int


class ApiKey(BaseModel):
    """What may be shown of a key."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    key_id: str
    store_id: str
    name: str
    created_at: datetime
    #: None: it works.
    revoked_at: datetime | None


def new_key() -> str:
    """Return a new key, which nobody has and nothing stores yet."""
    return f"cl_{secrets.token_hex(KEY_ID_BYTES)}_{secrets.token_hex(SECRET_BYTES)}"


def key_id_of(key: str) -> str | None:
    """Return the part of the key that is no secret, or None for a text that is no key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def hash_of(key: str) -> bytes:
    """Return what is stored of the key."""
    return hashlib.sha256(key.encode()).digest()


def matching(key: str, rows: Sequence[KeyRow]) -> KeyRow | None:
    """Return the row of this very key, compared in constant time."""
    wanted = hash_of(key)
    found = None
    for row in rows:
        if hmac.compare_digest(row.key_hash, wanted):
            found = row
    return found


def create_key(connection: psycopg.Connection[Any], store: str, name: str) -> str:
    """Store a new key of the store (`store_…`) and return it: the only time that it is seen.

    Raises:
        InvalidCommand: there is no such store, or the name is empty or too long.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or "\0" in name:
        raise InvalidCommand(f"name: must have 1 to {MAX_NAME_CHARACTERS} characters", field="name")
    key = new_key()
    values = {"store": store, "key_id": key_id_of(key), "key_hash": hash_of(key), "name": name}
    if connection.execute(CREATE_KEY, values).fetchone() is None:
        raise no_store(store)
    return key


def list_keys(connection: psycopg.Connection[Any], store: str | None) -> list[ApiKey]:
    """Return the keys of the store, or of all stores, oldest first; the revoked ones too.

    Raises:
        InvalidCommand: there is no such store.
    """
    if store is not None:
        require_store(connection, store)
    with connection.cursor(row_factory=class_row(ApiKey)) as cursor:
        return cursor.execute(LIST_KEYS, {"store": store}).fetchall()


def revoke_key(connection: psycopg.Connection[Any], key_id: str) -> None:
    """Make the key worthless, at once and for ever; safe to repeat.

    Raises:
        InvalidCommand: there is no such key.
    """
    if connection.execute(REVOKE_KEY, {"key_id": key_id}).fetchone() is None:
        raise InvalidCommand(f"there is no key {key_id}; `creditlane keys list` shows them", field="key_id")
