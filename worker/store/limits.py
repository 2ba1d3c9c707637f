"""Limits as the accounts' table has them, after a batch that set some. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...schemas.accounts import NO_FEATURES, AccountState
from ...schemas.journal import JournalRow
from ...schemas.kinds import Kind, content_of_row
from ...schemas.results import moment_of
from ..ledger.state import AccountKey


def limit_columns(
    rows: Iterable[JournalRow], accounts: Mapping[AccountKey, AccountState]
) -> tuple[list[AccountKey], dict[str, list[Any]]]:
    """Return the accounts whose limits the rows have set, and the arrays of `sql.CHANGE_LIMITS` beside their ids.

    `accounts` has them as they stand after the rows, which are in the order of their decisions.
    """
    latest: dict[AccountKey, JournalRow] = {}
    latest_low: dict[AccountKey, JournalRow] = {}
    for row in rows:
        if row.kind == Kind.SET_LIMIT and row.rejection is None:
            account = (row.store_id, row.account_id)
            latest[account] = row
            if content_of_row(row)["limit"] == "low_balance":
                latest_low[account] = row
    changed = sorted(latest)
    features = {account: accounts[account].features or NO_FEATURES for account in changed}
    set_low = {account: features[account].low_balance for account in latest_low}
    return changed, {
        "overdraft_limits": [str(accounts[account].overdraft_limit) for account in changed],
        "max_balances": [_digits(features[account].max_balance) for account in changed],
        "sets_low": [account in set_low for account in changed],
        "low_balances": [_digits(set_low.get(account)) for account in changed],
        "low_balances_since": [
            moment_of(latest_low[account].created_at_us) if set_low.get(account) is not None else None
            for account in changed
        ],
        "moments": [moment_of(latest[account].created_at_us) for account in changed],
    }


def _digits(amount: int | None) -> str | None:
    return None if amount is None else str(amount)
