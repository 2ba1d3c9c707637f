"""Commands that make events, and the endpoints that want them."""

from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from creditlane.schemas.commands import Command
from creditlane.schemas.events import new_secret
from creditlane.schemas.results import Result

from ..direct_store import DirectStore


class Publisher:
    """A ledger and its outbox, with endpoints that want to know."""

    def __init__(self, database_url: str) -> None:
        self.store = DirectStore(database_url)
        self.database = psycopg.connect(database_url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.store.connection.close()
        self.database.close()

    def add_endpoint(self, url: str, *, events: tuple[str, ...] = (), store_id: int = 1, **columns: Any) -> UUID:
        """Insert an endpoint, as the API does; return its id."""
        values = {
            "store_id": store_id,
            "endpoint_id": uuid4(),
            "kind": 1,
            "status": 1,
            "url": url,
            "events": list(events),
            "secret": new_secret(),
            **columns,
        }
        names = ", ".join(values)
        placeholders = ", ".join(f"%({name})s" for name in values)
        self.database.execute(f"insert into webhook_endpoints ({names}) values ({placeholders})".encode(), values)
        self.database.execute("update installation set subscriptions_version = subscriptions_version + 1")
        endpoint: UUID = values["endpoint_id"]
        return endpoint

    def happen(self, *commands: Command, callback_url: str | None = None) -> list[Result]:
        """Apply the commands, each in a transaction of its own, which writes its outbox row."""
        fields = {} if callback_url is None else {"callback_url": callback_url}
        return [self.store.apply(command.model_copy(update=fields))[0] for command in commands]

    def publish(self, rows: list[tuple[UUID, int, int]], callbacks: list[dict[str, Any]] | None = None) -> None:
        """Write one row of the outbox: of each journal row its account, seq and sequence."""
        accounts, seqs, sequences = ([row[column] for row in rows] for column in range(3))
        self.database.execute(
            "insert into outbox (store_id, accounts, seqs, sequences, callbacks) values (1, %s, %s, %s, %s)",
            [accounts, seqs, sequences, None if callbacks is None else Jsonb(callbacks)],
        )

    def deliveries(self, endpoint: UUID) -> list[dict[str, Any]]:
        """Return the deliveries to an endpoint, oldest first."""
        cursor = self.database.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(
            "select deliveries.*, event_type, next_attempt_at - last_attempt_at as pause "
            "from deliveries join events using (store_id, event_id) where endpoint_id = %s "
            "order by deliveries.created_at, event_id",
            [endpoint],
        ).fetchall()

    def endpoint(self, endpoint: UUID) -> dict[str, Any]:
        """Return the row of an endpoint."""
        cursor = self.database.cursor(row_factory=psycopg.rows.dict_row)
        row = cursor.execute(
            "select *, paused_until - now() as pause from webhook_endpoints where endpoint_id = %s", [endpoint]
        ).fetchone()
        assert row is not None
        return row

    def make_due(self, endpoint: UUID) -> None:
        """Let the time of every pending delivery to the endpoint have come."""
        self.database.execute(
            "update deliveries set next_attempt_at = now() where endpoint_id = %s and status = 1", [endpoint]
        )
        self.database.execute("update webhook_endpoints set paused_until = null where endpoint_id = %s", [endpoint])
