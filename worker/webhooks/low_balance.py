"""When an account has fallen below what was set for it, and what the event `balance.low` says of that. Pure."""

from __future__ import annotations

from ...schemas.journal import JournalRow

LOW_BALANCE = "balance.low"


def has_fallen_low(row: JournalRow, threshold: int | None) -> bool:
    """Return whether the account was not below the threshold before this entry, and is after it.

    So it is said once on the way down, and again only after the balance was back. None: nothing was set by then.
    """
    balance_before = row.balance_after - row.side * (row.amount or 0)
    return threshold is not None and balance_before >= threshold > row.balance_after


def low_balance_fields(row: JournalRow, threshold: int | None) -> dict[str, str]:
    """Return what the event says beside whose account it is."""
    return {"balance_minor_units": str(row.balance_after), "threshold_minor_units": str(threshold)}
