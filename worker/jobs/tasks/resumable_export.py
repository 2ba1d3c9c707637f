"""Exports: the entries of a period of one store, in the order of time, as files.

An export goes on where it was interrupted. It notes its latest row after so and so many rows, once these are on the
disk; what was written after the latest note is cut off and written again, byte for byte the same. Rows are read by
stretches of time and written in pieces, so no more than a piece is ever in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from ....schemas.errors import ConfigurationError
from ....schemas.export_request import Export, ExportRequest
from ....schemas.identifiers import ACCOUNT_PREFIX, entry_id, transaction_id
from ....schemas.kinds import SIDE_NAMES
from ....schemas.settings import Settings
from ..database import Connection, connect
from ..runs import Outcome, Run
from ..watermark import read_watermark
from .export_files import Files, Row, open_files

#: Rows of one read from the server and of one write.
PIECE_ROWS = 5_000
#: How long Postgres may take before the first row of a stretch comes, in seconds.
READING_SILENCE_SECONDS = 600.0
#: Pieces after which the position is noted.
NOTE_PIECES = 20
#: The first stretch of time, and the shortest.
FIRST_STRETCH, SHORTEST_STRETCH = timedelta(minutes=1), timedelta(milliseconds=100)
#: A stretch of fewer rows is followed by one twice as long, of more by one half as long.
FEW_ROWS, MANY_ROWS = 25_000, 100_000

FIND_STORE = "select store_id from stores where public_id = %(store)s"

#: The export that is under way, or a new one.
FIND_OR_MAKE = """
insert into exports (store_id, export_id, period_from, period_until, format, output)
values (%(store_id)s, %(export_id)s, %(since)s, %(until)s, %(format)s, %(output)s)
on conflict (store_id, output, format, period_from, period_until) where finished_at is null do update set
    format = excluded.format
returning export_id
"""

READ_EXPORT = """
select public_id, period_from, period_until, format, output, position, finished_at is not null
from exports join stores using (store_id) where store_id = %(store_id)s and export_id = %(export_id)s
"""

NOTE = "update exports set position = %(position)s where store_id = %(store_id)s and export_id = %(export_id)s"

FINISH = """
update exports set position = %(position)s, finished_at = clock_timestamp()
where store_id = %(store_id)s and export_id = %(export_id)s
"""

#: A stretch of time, after a row. The order is that of the whole export, so it does not matter where stretches meet.
#: The accounts are looked up: the planner might read all of them for every stretch.
READ_ENTRIES = """
select journal.account_id, seq, coalesce(transaction_account, journal.account_id), coalesce(transaction_seq, seq),
    customer_id, name, unit_label, side, amount::text, balance_after::text, reference, created_at
from journal left join lateral (
    select customer_id, name, unit_label from accounts
    where accounts.store_id = journal.store_id and accounts.account_id = journal.account_id
    limit 1
) as account on true
where store_id = %(store_id)s and seq > 0 and created_at >= %(since)s and created_at < %(until)s
    and (created_at, account_id, seq) > (%(after_created_at)s, %(after_account)s::uuid, %(after_seq)s)
order by created_at, account_id, seq
"""

#: Is called with how many rows are written, and how much of the period.
ExportProgress = Callable[[int, float], None]


class Key(msgspec.Struct, frozen=True):
    """Where a row stands in the order of an export."""

    created_at: datetime
    account: UUID
    seq: int


class ExportPosition(msgspec.Struct, frozen=True):
    """How far an export is: everything up to a row is on the disk."""

    rows: int = 0
    #: What the files need to go on: the length of the file, or the number of parts.
    size: int = 0
    #: The latest row; None: none yet.
    latest: Key | None = None
    #: Nothing follows.
    is_whole: bool = False


class Started(NamedTuple):
    """An export that can be gone on with."""

    store_id: int
    export_id: UUID


def start_export(connection: Connection, request: ExportRequest) -> Started:
    """Write the export down and return it; one of the same content that is not finished is gone on with.

    Raises:
        ConfigurationError: there is no such store, the period has not ended, or the output is there already.
    """
    store = connection.execute(FIND_STORE, {"store": request.store}).fetchone()
    if store is None:
        raise ConfigurationError(f"There is no store {request.store}; `creditlane stores list` shows them.")
    if request.until > read_watermark(connection):
        raise ConfigurationError(f"The period must have ended some seconds ago, and {request.until:%FT%TZ} has not.")
    if os.path.lexists(target := request.target):
        raise ConfigurationError(f"{target} is there already; remove it, or export into another directory.")
    values = {
        "store_id": store[0],
        "export_id": uuid4(),
        "since": request.since,
        "until": request.until,
        "format": request.format,
        "output": str(target),
    }
    (export_id,) = connection.execute(FIND_OR_MAKE, values).fetchone() or (None,)
    return Started(store[0], UUID(str(export_id)))


def perform(run: Run) -> Outcome:
    """Do or go on with the export that the run's arguments name."""
    started = Started(int(run.arguments["store_id"]), UUID(run.arguments["export_id"]))

    def note(rows: int, share: float) -> None:
        run.check()
        run.save({"rows": rows, "share": round(share, 4)})

    export = write_export(run.settings, started, note)
    return Outcome({"rows": export.rows, "output": str(export.output)})


def write_export(settings: Settings, started: Started, progress: ExportProgress) -> Export:
    """Write the export's files, from where it was interrupted if it was, and return what was made.

    Raises:
        ConfigurationError: another process writes it, what is there is not ours, or a package of the format is missing.
    """
    with connect(settings) as connection, connect(settings, silence_seconds=READING_SILENCE_SECONDS) as reading:
        row = connection.execute(READ_EXPORT, started._asdict()).fetchone()
        if row is None:
            raise ConfigurationError(f"There is no export {started.export_id}.")
        store, since, until, form, output, noted, is_finished = row
        position = msgspec.convert(noted or {}, ExportPosition)
        if not is_finished:
            period = Period(started, since, until)
            position = _Writing(connection, reading, period, progress).write(Path(output), form, position)
    return Export(store=store, since=since, until=until, format=form, output=Path(output), rows=position.rows)


class Period(NamedTuple):
    """What an export is of."""

    started: Started
    since: datetime
    until: datetime


class _Writing:
    """The writing of one export in one process."""

    def __init__(self, connection: Connection, reading: Connection, period: Period, progress: ExportProgress) -> None:
        self._connection = connection
        #: Its transactions last for as long as a stretch is read; what is noted is committed meanwhile.
        self._reading = reading
        self._started, self._since, self._until = period
        self._progress = progress

    def write(self, output: Path, form: str, position: ExportPosition) -> ExportPosition:
        """Write what is missing, give the files their name, and return how much there is."""
        if not (position.is_whole and output.exists()):
            with open_files(form, output) as files:
                # There may be less than was noted, as on another machine: then from the beginning.
                if not files.resume(position.size):
                    position = ExportPosition()
                    files.resume(0)
                position = self._write_rows(files, position)
                files.finish()
        self._note(FINISH, position)
        return position

    def _write_rows(self, files: Files, position: ExportPosition) -> ExportPosition:
        rows, latest = position.rows, position.latest
        for number, piece in enumerate(_pieces(self._entries(latest)), start=1):
            files.write([row for _, row in piece])
            rows, latest = rows + len(piece), piece[-1][0]
            if number % NOTE_PIECES == 0:
                self._note(NOTE, ExportPosition(rows, files.secure(), latest))
            self._progress(rows, (latest.created_at - self._since) / (self._until - self._since))
        whole = ExportPosition(rows, files.secure(), latest, is_whole=True)
        self._note(NOTE, whole)
        return whole

    def _entries(self, latest: Key | None) -> Iterator[tuple[Key, Row]]:
        """Yield every entry after the latest, in order."""
        after = latest or Key(self._since, UUID(int=0), 0)
        mark, stretch = after.created_at, FIRST_STRETCH
        while mark < self._until:
            end = min(self._until, mark + stretch)
            count = 0
            for entry in self._stretch(mark, end, after):
                yield entry
                count += 1
            mark = end
            if count < FEW_ROWS:
                stretch = min(2 * stretch, self._until - self._since)
            elif count > MANY_ROWS:
                stretch = max(stretch / 2, SHORTEST_STRETCH)

    def _stretch(self, since: datetime, until: datetime, after: Key) -> Iterator[tuple[Key, Row]]:
        values = {
            "store_id": self._started.store_id,
            "since": since,
            "until": until,
            "after_created_at": after.created_at,
            "after_account": after.account,
            "after_seq": after.seq,
        }
        with self._reading.transaction(), self._reading.cursor(name="export") as cursor:
            cursor.itersize = PIECE_ROWS
            cursor.execute(READ_ENTRIES, values)
            for account, seq, *fields in cursor:
                yield Key(fields[-1], account, seq), _row(account, seq, *fields)

    def _note(self, statement: str, position: ExportPosition) -> None:
        noted = Jsonb(msgspec.to_builtins(position))
        self._connection.execute(statement, {**self._started._asdict(), "position": noted})


def _pieces(entries: Iterator[tuple[Key, Row]]) -> Iterator[list[tuple[Key, Row]]]:
    while piece := list(islice(entries, PIECE_ROWS)):
        yield piece


def _row(account: UUID, seq: int, first_account: UUID, first_seq: int, *fields: Any) -> Row:
    customer, name, unit_label, side, amount, balance, reference, created_at = fields
    account_id = ACCOUNT_PREFIX + account.hex
    return Row(
        entry_id(account_id, seq),
        account_id,
        customer,
        name,
        unit_label,
        transaction_id(ACCOUNT_PREFIX + first_account.hex, first_seq),
        SIDE_NAMES[side],
        amount,
        balance,
        reference,
        created_at.astimezone(UTC),
    )
