"""When an account has fallen below what was set for it, and what the event `balance.low` says of that. Pure."""

from __future__ import annotations

import msgspec

from ...schemas.journal import FALLEN_BELOW, JournalRow

LOW_BALANCE = "balance.low"


def fallen_below(row: JournalRow, set_before: int | None) -> int | None:
    """Return the threshold that this entry took its account from at or above to below; None if there is none.

    So it is said once on the way down, and again only after the balance was back. The entry names it itself, whatever
    has been set since. One that was decided by a worker of the release before does not: then it is what was set before
    it and still is, `set_before`, by which the entry is judged here.
    """
    content = row.content
    if content is not None and FALLEN_BELOW in content:
        named = msgspec.json.decode(content).get(FALLEN_BELOW)
        if named is not None:
            return int(named)
    balance_before = row.balance_after - row.side * (row.amount or 0)
    return set_before if set_before is not None and balance_before >= set_before > row.balance_after else None


def low_balance_fields(row: JournalRow, threshold: int | None) -> dict[str, str]:
    """Return what the event says beside whose account it is."""
    return {"balance_minor_units": str(row.balance_after), "threshold_minor_units": str(threshold)}
