"""Brings the secrets of webhooks under the operator's first key: those in the clear, and those under an older key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from pydantic import BaseModel, ConfigDict

from ...schemas.errors import ConfigurationError, SecretUnreadable
from ...schemas.webhook_secrets import SEALED_PATTERN, SETTING, SecretKeys

Connection = psycopg.Connection[tuple[Any, ...]]

#: Rows that are read, and changed, together.
SLICE_ROWS = 500

#: Sealed ones, and those in the clear: of endpoints, callbacks, and what was before either.
COUNT_SECRETS = """
with kept (secret) as (
    select secret from webhook_endpoints union all select previous_secret from webhook_endpoints
    union all select secret from callback_secrets union all select previous_secret from callback_secrets
)
select count(*) filter (where secret like %(sealed)s), count(*) filter (where secret not like %(sealed)s) from kept
"""

READ_ENDPOINTS = """
select store_id, endpoint_id, previous_secret_until <= now(), secret, previous_secret from webhook_endpoints
where (store_id, endpoint_id) > (%(store)s, %(endpoint)s::uuid)
order by store_id, endpoint_id limit %(limit)s
"""
READ_CALLBACKS = """
select store_id, previous_secret_until <= now(), secret, previous_secret from callback_secrets
where store_id > %(store)s order by store_id limit %(limit)s
"""

#: A secret that was changed meanwhile is left as it is: whoever changed it has a key of its own.
CHANGE_ENDPOINT = """
update webhook_endpoints set secret = %(secret)s, previous_secret = %(previous)s
where store_id = %(store)s and endpoint_id = %(endpoint)s and secret = %(old)s
    and previous_secret is not distinct from %(old_previous)s
"""
CHANGE_CALLBACK = """
update callback_secrets set secret = %(secret)s, previous_secret = %(previous)s
where store_id = %(store)s and secret = %(old)s and previous_secret is not distinct from %(old_previous)s
"""


class SecretCount(BaseModel):
    """How the secrets of webhooks are kept."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    sealed: int
    in_the_clear: int


class SealingReport(SecretCount):
    """What was done, and how the secrets are kept now."""

    #: Rows that were changed, each with a secret and perhaps the one before it.
    changed: int
    #: Rows of which no key opens a secret; that one is as it was.
    unreadable: int


def count_secrets(connection: Connection) -> SecretCount:
    """Return how the secrets are kept."""
    sealed, clear = connection.execute(COUNT_SECRETS, {"sealed": SEALED_PATTERN}).fetchone() or (0, 0)
    return SecretCount(sealed=sealed, in_the_clear=clear)


def seal_all(connection: Connection, keys: SecretKeys) -> SealingReport:
    """Seal every secret under the first key. Safe to interrupt, to repeat, and beside everything else.

    Raises:
        ConfigurationError: there is no key.
    """
    if not keys:
        raise ConfigurationError(f"{SETTING} is not set; `creditlane webhooks new-key` makes a key")
    changed = unreadable = 0
    for statement, row, is_over, old in _rows(connection):
        # One before it that signs no more is forgotten.
        new = [_sealed(keys, kept) for kept in (old[0], None if is_over else old[1])]
        unreadable += not all(kept is None or keys.is_current(kept) for kept in new)
        if new != old:
            values = {**row, "secret": new[0], "previous": new[1], "old": old[0], "old_previous": old[1]}
            changed += connection.execute(statement, values).rowcount
    return SealingReport(changed=changed, unreadable=unreadable, **dict(count_secrets(connection)))


def _rows(connection: Connection) -> Iterator[tuple[str, dict[str, Any], bool | None, list[str | None]]]:
    """Give what changes each row, what names it, whether the second of its secrets signs no more, and both."""
    after: Sequence[Any] | None = (0, UUID(int=0))
    while after is not None:
        values = {"store": after[0], "endpoint": after[1], "limit": SLICE_ROWS}
        rows = connection.execute(READ_ENDPOINTS, values).fetchall()
        for store, endpoint, is_over, *secrets in rows:
            yield CHANGE_ENDPOINT, {"store": store, "endpoint": endpoint}, is_over, secrets
        after = rows[-1][:2] if rows else None
    last: int | None = 0
    while last is not None:
        rows = connection.execute(READ_CALLBACKS, {"store": last, "limit": SLICE_ROWS}).fetchall()
        for store, is_over, *secrets in rows:
            yield CHANGE_CALLBACK, {"store": store}, is_over, secrets
        last = rows[-1][0] if rows else None


def _sealed(keys: SecretKeys, kept: str | None) -> str | None:
    """Return the secret under the first key, or as it is where no key opens it."""
    if kept is None or keys.is_current(kept):
        return kept
    try:
        return keys.seal(keys.open(kept))
    except SecretUnreadable:
        return kept
