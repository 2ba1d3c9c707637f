"""How much of what a batch wants to reverse is reversed already, as the journal has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import psycopg

from ...lanes.encoding import PlainCommand
from ...schemas.commands import REVERSAL_KEY_PREFIX, Reverse, bounds_of_part_keys
from ...schemas.identifiers import Position, position_of
from ...schemas.kinds import Kind
from ..ledger.state import AddressedCommand
from . import sql

_REVERSE = Kind.REVERSE.word


def load_reversed(
    connection: psycopg.Connection[tuple[Any, ...]], commands: Iterable[AddressedCommand]
) -> dict[tuple[int, Position], int]:
    """Return how much is reversed of each transaction that the commands want to reverse, by its first entry.

    To be asked after the accounts were read. A reversal is an entry of its original's account: so one that is not
    counted here, because it was committed since, has the number that the account's next entry would get, and the
    primary key of the journal refuses the batch.
    """
    wanted = {
        (account[0], cast("Reverse", command).transaction_id)
        for account, command in commands
        if type(command) is not PlainCommand and command.kind == _REVERSE
    }
    if not wanted:
        return {}
    stores, transactions = zip(*wanted, strict=True)
    above, below = zip(*map(bounds_of_part_keys, transactions), strict=True)
    values = {
        "stores": list(stores),
        "transactions": list(transactions),
        "wholes": [REVERSAL_KEY_PREFIX + transaction for transaction in transactions],
        "above": list(above),
        "below": list(below),
    }
    records = connection.execute(sql.LOAD_REVERSED, values)
    found = ((store_id, position_of(transaction), int(amount)) for store_id, transaction, amount in records)
    return {(store_id, position): amount for store_id, position, amount in found if position is not None}
