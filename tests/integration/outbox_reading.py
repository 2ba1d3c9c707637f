"""The outbox as the tests see it: who subscribes, and what was written for them."""

import uuid
from typing import Any, NamedTuple

import psycopg

from creditlane.schemas.events import new_secret
from creditlane.schemas.settings import DEFAULT_STORE


class OutboxRow(NamedTuple):
    """One row of the outbox."""

    store: str
    #: Account id, seq and sequence of each journal row that it points to.
    positions: list[tuple[str, int, int]]
    callbacks: list[dict[str, Any]] | None


def subscribe(database_url: str, *events: str, store: str = DEFAULT_STORE) -> uuid.UUID:
    """Make an endpoint for these events, or for all, as whoever makes one does."""
    endpoint_id = uuid.uuid4()
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, events, secret) "
            "select store_id, %s, 1, 1, 'https://example.com/', %s, %s from stores where public_id = %s",
            [endpoint_id, list(events), new_secret(), store],
        )
        _move_version(connection)
    return endpoint_id


def change_status(database_url: str, endpoint_id: uuid.UUID, status: int) -> None:
    """Change the status of an endpoint, as whoever changes one does."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update webhook_endpoints set status = %s where endpoint_id = %s",
            [status, endpoint_id],
        )
        _move_version(connection)


def _move_version(connection: psycopg.Connection[Any]) -> None:
    connection.execute("update installation set subscriptions_version = subscriptions_version + 1")


def read_outbox(database_url: str) -> list[OutboxRow]:
    """Return the outbox in order."""
    with psycopg.connect(database_url) as connection:
        records = connection.execute(
            "select public_id, accounts, seqs, sequences, callbacks "
            "from outbox join stores using (store_id) order by outbox_id"
        ).fetchall()
    return [
        OutboxRow(
            store,
            [(f"cca_{account.hex}", *position) for account, *position in zip(accounts, seqs, sequences, strict=True)],  # type: ignore[misc]
            callbacks,
        )
        for store, accounts, seqs, sequences, callbacks in records
    ]


def published_positions(database_url: str) -> list[tuple[str, int, int]]:
    """Return the positions of all events, in order."""
    return [position for row in read_outbox(database_url) for position in row.positions]
