"""The dead letters: commands that could not be decided. Lists them, shows one, and puts them back on their lanes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict, field_serializer

from ...lanes.deadlines import deadline_in
from ...lanes.encoding import decode_command
from ...lanes.postgres.errors import error_text, translated
from ...lanes.postgres.sessions import connect
from ...lanes.postgres.start_check import check_ledger
from ...schemas.control_characters import visible
from ...schemas.errors import InvalidCommand, OutcomeUnknown, UndecodableCommand
from ...schemas.settings import Settings
from ..client._sync.session import Session
from ..client.chunks import chunk_of_encoded
from ..client.ledger_sessions import operator_limits
from ..ledger.read_limits import OPERATOR_SESSION_NAME

_COLUMNS = """
dead_letter_id, public_id as store_id, partition, lane_entry, payload, idempotency_key, code, reason,
dead_letters.created_at, replayed_at
from dead_letters left join stores on stores.store_id = dead_letters.store_id
"""

#: Oldest first, so that commands of one account go back in the order in which they came.
FIND_LETTERS = f"""
select {_COLUMNS}
where %(replayed)s or replayed_at is null
order by dead_letters.created_at, partition, split_part(lane_entry, '-', 1)::numeric,
    split_part(lane_entry, '-', 2)::numeric
limit %(limit)s
"""

FIND_LETTER = f"select {_COLUMNS} where dead_letter_id = %(id)s"

MARK_REPLAYED = """
update dead_letters set replayed_at = now() where dead_letter_id = %(id)s and replayed_at is null
"""


class DeadLetter(BaseModel):
    """A command that was taken off its lane undecided."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    dead_letter_id: UUID
    #: None where the bytes do not say, or there is no such store.
    store_id: str | None
    partition: int
    #: Id of the stream entry that the command was.
    lane_entry: str
    #: The command as it stood on the lane.
    payload: bytes
    idempotency_key: str | None
    code: str
    reason: str
    created_at: datetime
    #: When it was put back on its lane; None: not yet.
    replayed_at: datetime | None

    @field_serializer("payload", when_used="json")
    def _escaped(self, payload: bytes) -> str:
        return escaped(payload)


def escaped(payload: bytes) -> str:
    r"""Return bytes as printable text: what is no text, or would move a terminal's cursor, as \x.. or \u...."""
    text = payload.decode("utf-8", errors="backslashreplace")
    return visible(text)


class DeadLetters:
    """The dead letters of all stores of an installation. An operator's tool: it sees every store.

    Every method raises Unavailable when Redis or Postgres cannot be reached.
    """

    def __init__(self, connection: psycopg.Connection[Any], settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._session: Session | None = None

    @classmethod
    @contextmanager
    def connect(cls, settings: Settings) -> Iterator[Self]:
        """Give the dead letters of the database of these settings.

        Raises:
            ConfigurationError: the database is not set, or not migrated.
        """
        url = settings.require_database_url()
        with translated("owner"), connect(url, name=OPERATOR_SESSION_NAME, limits=operator_limits()) as connection:
            check_ledger(connection, settings.partitions)
            letters = cls(connection, settings)
            try:
                yield letters
            finally:
                letters._close()

    def find(self, *, replayed: bool = False, limit: int | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters, oldest first, also those that were replayed if wanted."""
        with self._connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
            cursor.execute(FIND_LETTERS, {"replayed": replayed, "limit": limit})
            yield from cursor

    def get(self, dead_letter_id: str) -> DeadLetter:
        """Return the dead letter of this id, or raise InvalidCommand."""
        try:
            wanted = UUID(dead_letter_id)
        except ValueError:
            raise InvalidCommand(f"{dead_letter_id!r} is no id of a dead letter", field="dead_letter_id") from None
        with self._connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
            letter = cursor.execute(FIND_LETTER, {"id": wanted}).fetchone()
        if letter is None:
            raise InvalidCommand(f"there is no dead letter {wanted}", field="dead_letter_id")
        return letter

    def replay(self, letter: DeadLetter) -> str:
        """Put the command back at the end of its account's lane and return the id of its new entry there.

        Safe to repeat: the command's idempotency key lets it have one effect. If it cannot be decided this time
        either, it becomes a dead letter again.

        Raises:
            InvalidCommand: it was replayed already.
            UndecodableCommand: the bytes do not say which account's lane it belongs on.
            LaneFull: the lane is at its limit; nothing changed.
            OutcomeUnknown: Redis did not answer, or it is on its lane and Postgres did not mark it; replay it again.
        """
        if letter.replayed_at is not None:
            raise InvalidCommand(f"dead letter {letter.dead_letter_id} was replayed at {letter.replayed_at:%F %T %Z}")
        try:
            command = decode_command(letter.payload)
        except UndecodableCommand as error:
            raise UndecodableCommand(
                f"dead letter {letter.dead_letter_id} does not say which lane it belongs on: {error.message}"
            ) from None
        session, deadline = self._opened_session(), deadline_in(self._settings.wait_timeout_seconds)
        # The very bytes: a ticket knows its command by their digest.
        address = command.store_id, command.account_id, command.idempotency_key
        chunk = chunk_of_encoded(*address, letter.payload, session.partitions(deadline))
        enqueue = session.sender.send(chunk, session.numbers.take(), keep=True, deadline=deadline)
        # Marked last: a crash in between leads to a second replay, which changes nothing.
        self._mark_replayed(letter)
        return enqueue.entries[0].decode()

    def _mark_replayed(self, letter: DeadLetter) -> None:
        try:
            self._connection.execute(MARK_REPLAYED, {"id": letter.dead_letter_id})
        except psycopg.OperationalError as error:
            raise OutcomeUnknown(
                f"dead letter {letter.dead_letter_id} is on its lane again, but Postgres did not mark it as replayed "
                f"({error_text(error)}); replay it again: it has one effect"
            ) from error

    def _opened_session(self) -> Session:
        if self._session is None:
            self._session = Session(self._settings)
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
