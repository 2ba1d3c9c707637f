"""From the outbox to deliveries: who wants to know of what the ledger's workers have written.

One part of the outbox is turned into events and deliveries in one transaction that also deletes it, and the ids are
derived from the journal. So a part is fanned out once, and what stands in the outbox twice is one event.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import structlog

from ...schemas.events import EVENT_TYPES, new_secret
from ...schemas.journal import Refusal
from ...schemas.journal_columns import row_of
from ...schemas.webhook_secrets import SecretKeys
from . import sql
from .callbacks import callback_event
from .event_bodies import Event, OutboxItem, events_of

#: Rows of the outbox that are read together, and about how many items of them are fanned out in one transaction.
PART_ROWS = 200
PART_ITEMS = 1_000
#: Items whose bodies are made in one go: what is being sent meanwhile waits for it.
BODIES_AT_ONCE = 200
#: Lines that a store's callbacks to any further origins share.
SHARED_LINES = 16

_log = structlog.get_logger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
#: A row of the outbox: its store and its id.
OutboxKey = tuple[int, int]


class FanOut:
    """Fans out on one connection, which must be in autocommit mode; a store may have so many origins of callbacks."""

    def __init__(self, connection: Connection, keys: SecretKeys, most_origins: int) -> None:
        self._connection = connection
        self._keys = keys
        self._most_origins = most_origins
        self._fewest_first = False

    async def next_part(self) -> int:
        """Fan out a part of the outbox, of each store its oldest rows; return how many of its rows that was.

        By turns the stores with the fewest items come first, and those that wait longest: so neither starves. None are
        done when there are none, or when another process is at it.

        Raises:
            psycopg.Error: as Postgres gives it; nothing was done.
        """
        connection = self._connection
        found = await (await connection.execute(sql.ANY_OUTBOX)).fetchone()
        if found is None or not found[0]:
            return 0
        self._fewest_first = not self._fewest_first
        async with connection.transaction():
            locked = await (await connection.execute(sql.LOCK_FAN_OUT)).fetchone()
            if locked is None or not locked[0]:
                return 0
            values = {"limit": PART_ROWS, "fewest_first": self._fewest_first}
            rows = _first_part(await (await connection.execute(sql.READ_OUTBOX, values)).fetchall())
            if rows:
                await _fan_out(connection, self._keys, rows, self._most_origins)
                await connection.execute(sql.DELETE_OUTBOX, _columns(rows))
        return len(rows)


def origin_of(url: str) -> str:
    """Return what callbacks are grouped by: scheme, host and port, as far as the URL can be read."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return "unreadable"
    return f"{parts.scheme.lower()}://{f'[{host}]' if ':' in host else host}{port}"


def _first_part(records: Iterable[Sequence[Any]]) -> list[OutboxKey]:
    rows: list[OutboxKey] = []
    items = 0
    for store_id, outbox_id, count in records:
        if rows and items + count > PART_ITEMS:
            break
        rows.append((store_id, outbox_id))
        items += count
    return rows


def _columns(rows: Sequence[OutboxKey]) -> dict[str, list[int]]:
    return {"stores": [store_id for store_id, _ in rows], "ids": [outbox_id for _, outbox_id in rows]}


async def _fan_out(connection: Connection, keys: SecretKeys, rows: Sequence[OutboxKey], most_origins: int) -> None:
    columns = _columns(rows)
    wanted = _wanted_types(await (await connection.execute(sql.READ_WANTED, columns)).fetchall())
    if wanted:
        records = await (await connection.execute(sql.READ_ITEMS, columns)).fetchall()
        await _store_items(connection, await _events_of_records(records, wanted))
    records = await (await connection.execute(sql.READ_CALLBACKS, columns)).fetchall()
    callbacks = [record for record in records if _says_something(record)]
    if callbacks:
        await _store_callbacks(connection, keys, callbacks, most_origins)


def _wanted_types(records: Iterable[Sequence[Any]]) -> dict[OutboxKey, frozenset[str]]:
    """Return for each row of the outbox what somebody wants of it; an endpoint that names nothing wants all."""
    wanted: defaultdict[OutboxKey, frozenset[str]] = defaultdict(frozenset)
    for store_id, outbox_id, events in records:
        wanted[store_id, outbox_id] |= frozenset(events or EVENT_TYPES)
    return dict(wanted)


async def _events_of_records(
    records: Sequence[Sequence[Any]], wanted: dict[OutboxKey, frozenset[str]]
) -> list[tuple[int, Event]]:
    """Return the events with the row of the outbox that each is from."""
    made: list[tuple[int, Event]] = []
    for start in range(0, len(records), BODIES_AT_ONCE):
        for store_id, outbox_id, *record in records[start : start + BODIES_AT_ONCE]:
            types = wanted.get((store_id, outbox_id), ())
            if types:
                made += [(outbox_id, event) for event in events_of(_item_of(record), types)]
        await asyncio.sleep(0)
    return made


def _item_of(record: Sequence[Any]) -> OutboxItem:
    sequence, store, customer_id, name, unit_label, opened_at_us, low_balance, *row = record
    low = None if low_balance is None else int(low_balance)
    return OutboxItem(row_of(row), sequence, store, customer_id, name, unit_label, opened_at_us, low)


async def _store_items(connection: Connection, made: Sequence[tuple[int, Event]]) -> None:
    if not made:
        return
    events = [event for _, event in made]
    await _store_events(connection, events)
    await connection.execute(
        sql.INSERT_DELIVERIES,
        {
            "stores": [event.store_id for event in events],
            "events": [event.event_id for event in events],
            "types": [event.event_type for event in events],
            "ids": [outbox_id for outbox_id, _ in made],
        },
    )


async def _store_callbacks(
    connection: Connection, keys: SecretKeys, records: Sequence[Sequence[Any]], most_origins: int
) -> None:
    events, urls = [_callback_of(record) for record in records], [str(record[2]) for record in records]
    stores = sorted({event.store_id for event in events})
    wanted = [(event.store_id, origin_of(url)) for event, url in zip(events, urls, strict=True)]
    lines = await _lines_of(connection, wanted, most_origins)
    targets = sorted({(store_id, lines[store_id, origin]) for store_id, origin in wanted})
    secrets = [keys.seal(new_secret()) for _ in stores]
    await connection.execute(sql.MAKE_CALLBACK_SECRETS, {"stores": stores, "secrets": secrets})
    await connection.execute(
        sql.MAKE_ORIGINS,
        {"stores": [store_id for store_id, _ in targets], "origins": [origin for _, origin in targets]},
    )
    await _store_events(connection, events)
    await connection.execute(
        sql.INSERT_CALLBACKS,
        {
            "stores": [event.store_id for event in events],
            "events": [event.event_id for event in events],
            "origins": [lines[origin] for origin in wanted],
            "urls": urls,
        },
    )


async def _lines_of(
    connection: Connection, wanted: Sequence[tuple[int, str]], most_origins: int
) -> dict[tuple[int, str], str]:
    """Return for each store's origin what its callbacks are grouped by: itself, or one of the shared lines."""
    targets = list(dict.fromkeys(wanted))
    values = {"stores": [store_id for store_id, _ in targets], "origins": [origin for _, origin in targets]}
    known, counts = set[tuple[int, str]](), Counter[int]()
    for store_id, origin, count in await (await connection.execute(sql.READ_ORIGINS, values)).fetchall():
        if origin is None:
            counts[store_id] = count
        else:
            known.add((store_id, origin))
    lines: dict[tuple[int, str], str] = {}
    for store_id, origin in targets:
        if (store_id, origin) in known or counts[store_id] < most_origins:
            counts[store_id] += (store_id, origin) not in known
            lines[store_id, origin] = origin
        else:
            # Always the same one, and none that an origin could be called.
            lines[store_id, origin] = f"further origins {zlib.crc32(origin.encode()) % SHARED_LINES}"
    return lines


def _says_something(record: Sequence[Any]) -> bool:
    """Return whether there is a row or a refusal; one without either must not hold up all others for ever."""
    store_id, _, _, _, account_id, sequence, refusal, row_store, *_ = record
    if row_store is None and refusal in {None, "null"}:
        _log.error("a callback is about nothing", store=store_id, account=account_id, sequence=sequence)
        return False
    return True


def _callback_of(record: Sequence[Any]) -> Event:
    store_id, written_at_us, url, key, account_id, sequence, refusal, *row = record
    # What has no row has a refusal.
    fact = row_of(row) if row[0] is not None else msgspec.json.decode(refusal, type=_SentRefusal).refusal()
    return callback_event(store_id, account_id, key, url, fact, sequence=sequence, written_at_us=written_at_us)


class _SentRefusal(msgspec.Struct):
    code: str
    message: str
    details: dict[str, Any] = {}

    def refusal(self) -> Refusal:
        return Refusal(self.code, self.message, self.details)


async def _store_events(connection: Connection, events: Sequence[Event]) -> None:
    await connection.execute(
        sql.INSERT_EVENTS,
        {
            "stores": [event.store_id for event in events],
            "events": [event.event_id for event in events],
            "types": [event.event_type for event in events],
            "moments": [event.created_at for event in events],
            "bodies": [event.body for event in events],
        },
    )
