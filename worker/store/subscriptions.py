"""Which decisions go to the outbox: what the endpoints of each store subscribe to, as the worker sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import psycopg

from ...schemas.events import EVENT_TYPES, EventType
from ...schemas.journal import JournalRow
from ...schemas.kinds import Kind
from . import sql

#: Kind and side of the journal rows that each event may be made of. What is below a threshold is found out later.
_SITUATIONS: Mapping[EventType, frozenset[tuple[int, int]]] = {
    event: frozenset(
        (int(kind), side) for kind in Kind for side, events in kind.record.events.items() if event in events
    )
    for event in EVENT_TYPES
}


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """What the endpoints of one store subscribe to, all together."""

    everything: bool
    rejections: bool
    #: Kind and side of the rows that were applied.
    situations: frozenset[tuple[int, int]]

    def includes(self, row: JournalRow) -> bool:
        """Return whether any endpoint subscribes to this row."""
        if row.rejection is not None:
            return self.rejections
        return self.everything or (row.kind, row.side) in self.situations


def wanted_of(events: Iterable[str]) -> Wanted:
    """Return what is wanted by who subscribes to these events; to none by name means to all."""
    named = frozenset(events) or frozenset(EVENT_TYPES)
    situations = frozenset[tuple[int, int]]().union(*(_SITUATIONS[event] for event in EVENT_TYPES if event in named))
    return Wanted(named >= set(EVENT_TYPES), "command.rejected" in named, situations)


class Subscriptions:
    """The subscriptions of the stores that something is decided for, read again when their version has moved on.

    Only of those: one store that changes its own time and again must not have everybody's read each time.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        #: Of each store that was looked at since; None: nobody of it subscribes to anything.
        self._wanted: dict[int, Wanted | None] = {}

    def of_stores(
        self, connection: psycopg.Connection[tuple[Any, ...]], version: int, stores: Iterable[int]
    ) -> dict[int, Wanted]:
        """Return what each of these wants, for a transaction that has seen this version; one without any is missing.

        Whoever changed a subscription was answered after the version had moved on, so no command sent since then is
        decided by an older map.
        """
        if version != self._version:
            self._wanted.clear()
            self._version = version
        stores = set(stores)
        unknown = stores - self._wanted.keys()
        if unknown:
            records = connection.execute(sql.LOAD_SUBSCRIPTIONS, {"stores": list(unknown)}).fetchall()
            self._wanted.update(dict.fromkeys(unknown))
            for store_id, takes_all, events in records:
                self._wanted[store_id] = wanted_of(() if takes_all else events)
        return {store_id: wanted for store_id in stores if (wanted := self._wanted[store_id]) is not None}
