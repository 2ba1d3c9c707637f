"""The worker's store without lanes around it: commands in, results out, one batch a call."""

from collections.abc import Mapping
from typing import Self

import psycopg

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.commands import Command
from creditlane.schemas.journal import Announcement
from creditlane.schemas.results import Result, result_of_announcement
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.worker.store.transaction import LedgerStore

#: As the tests' databases are initialised.
PARTITIONS = 8


class DirectStore:
    """One worker's store, over a connection of its own."""

    def __init__(self, database_url: str, worker_id: str = "worker") -> None:
        self.connection = psycopg.connect(database_url, prepare_threshold=None)
        self.ledger_store = LedgerStore(self.connection, worker_id, partitions=PARTITIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.connection.close()

    def apply(
        self,
        *commands: Command,
        store: str = DEFAULT_STORE,
        careful: bool = False,
        epochs: Mapping[int, int] | None = None,
    ) -> list[Result]:
        """Apply the commands as one batch, as they would come off a lane, and return their results."""
        number = self.ledger_store.find_stores([store])[store]
        addressed = [
            ((number, str(command.account_id)), decode_command(encode_command(command, store))) for command in commands
        ]
        outcomes = self.ledger_store.transact(addressed, epochs or {}, careful=careful)
        return [
            result_of_announcement(
                Announcement(
                    0,
                    outcome.row,
                    outcome.replayed,
                    outcome.refusal,
                    dry_run=outcome.dry_run,
                    further=outcome.further if outcome.dry_run else (),
                ),
                str(command.account_id),
                command.idempotency_key,
            )
            for outcome, command in zip(outcomes, commands, strict=True)
        ]


def codes(results: list[Result]) -> list[str]:
    """Return for each result `applied`, or why it was not."""
    return [result.error.code if result.error else result.status for result in results]


def add_store(database_url: str, public_id: str) -> None:
    """Make a store."""
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into stores (public_id, name) values (%s, 'Another')", [public_id])
