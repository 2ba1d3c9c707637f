"""What events say of a hold: read from the journal row that made, changed or ended it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...schemas.journal import JournalRow
from ...schemas.results import hold_end_of_row, hold_id_of_row, moment_text

#: The events that are about a hold.
HOLD_EVENTS = frozenset({"hold.created", "hold.captured", "hold.voided", "hold.extended", "hold.expired"})


def hold_object(row: JournalRow, account: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event of this row says of the hold, with whose account it is, but for when it was."""
    content = {"id": hold_id_of_row(row), "object": "customer_credits_hold", **account}
    if row.amount is not None:
        content["amount_minor_units"] = str(row.amount)
    if row.seq > 0:
        content["remaining_minor_units"] = str(msgspec.json.decode(row.content or "{}")["remaining"])
    content["held_after_minor_units"] = str(row.held_after)
    content["balance_after_minor_units"] = str(row.balance_after)
    content["reference"] = row.reference or ""
    if (end := hold_end_of_row(row)) is not None:
        content["expires_at"] = moment_text(end)
    if row.seq > 0:
        content["transaction_id"] = row.transaction_id
    return content
