"""What the transactions of a batch touch: the entries that are to be reversed, and accounts on other lanes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
import psycopg

from ...lanes.encoding import PlainCommand
from ...lanes.routing import partition_of
from ...schemas.commands import Reverse
from ...schemas.identifiers import Position, position_of
from ...schemas.journal import JournalRow
from ...schemas.journal_columns import row_of
from ...schemas.kinds import SPANNING_WORDS, Kind
from ..ledger.reversals import positions_of
from ..ledger.state import AccountKey, AddressedCommand
from ..ledger.transactions import accounts_of
from . import sql

_POST, _REVERSE = Kind.POST.word, Kind.REVERSE.word

Originals = dict[tuple[int, Position], JournalRow]


class Scope(msgspec.Struct, frozen=True):
    """Empty for a batch without posts and reversals."""

    originals: Originals = {}
    #: Every account that a transaction of the batch touches.
    accounts: frozenset[AccountKey] = frozenset()
    #: Those of them on lanes that the batch was not read from: another worker may be at work there.
    foreign_accounts: frozenset[AccountKey] = frozenset()
    foreign_partitions: frozenset[int] = frozenset()
    has_reversals: bool = False
    #: A transaction moves more than the account it is addressed to.
    spans_accounts: bool = False


NO_SCOPE = Scope()


def scope_of(
    connection: psycopg.Connection[tuple[Any, ...]],
    commands: Sequence[AddressedCommand],
    epochs: Mapping[int, int],
    partitions: int,
) -> Scope:
    """Return what the batch's transactions touch. Reads journal rows, which never change, so no lock is needed yet."""
    transactions = [
        (account, command)
        for account, command in commands
        if type(command) is not PlainCommand and command.kind in SPANNING_WORDS
    ]
    if not transactions:
        return NO_SCOPE
    wanted = {
        (account[0], position)
        for account, command in transactions
        if command.kind == _REVERSE and (position := position_of(cast("Reverse", command).transaction_id))
    }
    originals = _load_entries(connection, wanted)
    further = {(store, position) for (store, _), row in originals.items() for position in positions_of(row)}
    originals |= _load_entries(connection, further - originals.keys())
    accounts: set[AccountKey] = set()
    for account, command in transactions:
        accounts |= accounts_of(account[0], command, originals)
    lanes = {account: partition_of(account[1], partitions) for account in accounts}
    foreign = {account: lane for account, lane in lanes.items() if lane not in epochs}
    return Scope(
        originals=originals,
        accounts=frozenset(accounts),
        foreign_accounts=frozenset(foreign),
        foreign_partitions=frozenset(foreign.values()),
        has_reversals=bool(wanted),
        spans_accounts=not accounts <= {account for account, _ in transactions}
        or any(command.kind == _POST for _, command in transactions),
    )


def _load_entries(connection: psycopg.Connection[tuple[Any, ...]], wanted: Iterable[tuple[int, Position]]) -> Originals:
    positions = list(wanted)
    if not positions:
        return {}
    records = connection.execute(
        sql.LOAD_ENTRIES,
        {
            "stores": [store_id for store_id, _ in positions],
            "accounts": [position.account_id[4:] for _, position in positions],
            "seqs": [position.seq for _, position in positions],
        },
    )
    return {(row.store_id, Position(row.account_id, row.seq)): row for row in map(row_of, records)}
