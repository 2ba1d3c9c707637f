"""Opening accounts: which of a batch ask for an id and a name, and the proof that each got both or neither."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import msgspec

from ...schemas.account_names import name_key
from ...schemas.commands import OpenAccount
from ...schemas.errors import CreditlaneError
from ...schemas.journal import JournalRow
from ...schemas.kinds import Kind
from ...schemas.results import moment_of
from .state import UNOPENED, AccountKey, AddressedCommand, BatchState, IdempotencyKey

Claim = tuple[int, OpenAccount]

_OPEN_ACCOUNT, _CLOSE = Kind.OPEN_ACCOUNT.word, Kind.CLOSE.word


def parts_of(commands: Sequence[AddressedCommand]) -> list[Sequence[AddressedCommand]]:
    """Return the batch in parts, each of which can claim its names before anything in it is decided.

    An opening begins a new part after a closing, which may free its name, and after another opening of its account,
    which may be refused; so does a dry run after those that claim names, and one that claims a name after dry runs. So
    a batch gives what its commands one by one would give.
    """
    cuts = [0]
    closes = False
    opening: dict[AccountKey, str] = {}
    dry_openings = False
    for index, (account, command) in enumerate(commands):
        if command.kind == _CLOSE:
            closes = True
        elif command.kind == _OPEN_ACCOUNT:
            key = command.idempotency_key
            other_turn = bool(opening) and command.dry_run != dry_openings
            repeated = account in opening if command.dry_run else opening.get(account, key) != key
            if closes or other_turn or repeated:
                cuts.append(index)
                closes = False
                opening.clear()
            opening[account] = key
            dry_openings = command.dry_run
    return [commands[start:end] for start, end in pairwise([*cuts, len(commands)])]


def claims_of(commands: Iterable[AddressedCommand], batch: BatchState) -> list[Claim]:
    """Return the commands of the batch that will open their account if its name is free.

    Only the first of several with one key or one account can: the ledger answers the later ones from the first.
    """
    claims: list[Claim] = []
    keys: set[IdempotencyKey] = set(batch.known)
    accounts: set[AccountKey] = set()
    for account, command in commands:
        if command.dry_run:
            continue
        key = (account[0], command.idempotency_key)
        new = key not in keys
        keys.add(key)
        if command.kind != _OPEN_ACCOUNT or not new or account in accounts:
            continue
        accounts.add(account)
        if batch.accounts[account].status == UNOPENED.status:
            claims.append((account[0], cast("OpenAccount", command)))
    return claims


def dry_claims_of(commands: Iterable[AddressedCommand], batch: BatchState) -> list[Claim]:
    """Return the dry runs of the batch that would open their account if its name were free."""
    return [
        (account[0], cast("OpenAccount", command))
        for account, command in commands
        if command.dry_run and command.kind == _OPEN_ACCOUNT and batch.accounts[account].status == UNOPENED.status
    ]


def account_of_claim(claim: Claim) -> AccountKey:
    """Return the account that is to be opened."""
    store_id, command = claim
    return store_id, command.account_id or ""


def name_columns(claims: Sequence[Claim]) -> dict[str, list[Any]]:
    """Return what is unique of each claim, as the arrays of `sql.FIND_NAME_HOLDERS`."""
    commands = [command for _, command in claims]
    return {
        "stores": [store_id for store_id, _ in claims],
        "accounts": [(command.account_id or "")[4:] for command in commands],
        "customers": [command.customer_id for command in commands],
        "name_keys": [name_key(command.name) for command in commands],
    }


def claim_columns(claims: Sequence[Claim], now_us: int) -> dict[str, list[Any]]:
    """Return the claims as the arrays of `sql.CLAIM_ACCOUNTS`."""
    commands = [command for _, command in claims]
    return {
        **name_columns(claims),
        "names": [command.name for command in commands],
        "unit_labels": [command.unit_label for command in commands],
        "limits": [str(command.overdraft_limit) for command in commands],
        "moments": [moment_of(now_us)] * len(claims),
        "metadata": [
            None if command.metadata is None else msgspec.json.encode(command.metadata).decode() for command in commands
        ],
    }


def check_opened(opened: Collection[AccountKey], rows: Iterable[JournalRow]) -> None:
    """Check that the accounts that were written and those that the ledger opened are the same.

    Raises:
        CreditlaneError: they differ; the batch must be rolled back.
    """
    decided = {
        (row.store_id, row.account_id) for row in rows if row.kind == Kind.OPEN_ACCOUNT and row.rejection is None
    }
    if decided != set(opened):
        raise CreditlaneError(f"opened {len(opened)} accounts for {len(decided)} that the ledger opened")
