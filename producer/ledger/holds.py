"""How holds are read: what is asked of Postgres, its rows, and what callers get of them. Only reads, in one store.

A hold whose end has passed by the clock of Postgres reads as expired and sets nothing aside, whether or not its
account's lane has written that down. `queries` counts what an account has held by the same condition, in the same
statement as the rest of the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import msgspec

from ...schemas.errors import HoldNotFound
from ...schemas.holds import AccountHold, HoldStatusName
from ...schemas.identifiers import ACCOUNT_PREFIX, hold_id, hold_position_of
from ...schemas.results import moment_of
from ...schemas.statuses import HoldStatus
from .queries import HELD_NOW, MICROSECONDS
from .read_steps import Query, Reading
from .reads import ABOVE_EVERY_SEQ, Page, PageAfter, account, page_of

#: Its end has passed, and nobody has written that down.
_JUST_ENDED = f"(h.status = {HoldStatus.OPEN:d} and not {HELD_NOW})"

#: Columns of `HoldRow`. What was attached to a hold is on the decision that made it: one more descent.
_HOLD = f"""
select h.account_id, h.seq, case when {_JUST_ENDED} then {HoldStatus.EXPIRED:d} else h.status end,
       h.amount::text, h.captured::text, (case when {_JUST_ENDED} then 0 else h.remaining end)::text, h.reference,
       {MICROSECONDS.format("h.expires_at")}, {MICROSECONDS.format("h.created_at")},
       {MICROSECONDS.format(f"case when {_JUST_ENDED} then h.expires_at else h.ended_at end")}, made.content::text
from holds h
left join lateral (
    select content from journal j
    where j.store_id = h.store_id and j.account_id = h.account_id and j.seq = -h.seq
    limit 1
) made on true
where h.store_id = %(store)s and h.account_id = %(account)s::uuid
"""  # noqa: S608  constants only

READ_HOLD = f"{_HOLD} and h.seq = %(seq)s"

#: Which holds have a status. The number stands in the text, or the index of the open ones would not be used.
_OF_STATUS = {status: f"h.status = {status:d}" for status in (HoldStatus.CAPTURED, HoldStatus.VOIDED)} | {
    HoldStatus.OPEN: f"h.status = {HoldStatus.OPEN:d} and {HELD_NOW}",
    HoldStatus.EXPIRED: f"(h.status = {HoldStatus.EXPIRED:d} or {_JUST_ENDED})",
}


class HoldRow(NamedTuple):
    """A hold. Amounts are digits, times microseconds since 1970 in UTC."""

    account_id: str
    seq: int
    status: int
    amount: str
    captured: str
    remaining: str
    reference: str
    expires_us: int
    created_us: int
    ended_us: int | None
    content: str | None

    @property
    def id(self) -> str:
        """The hold's id."""
        return hold_id(self.account_id, self.seq)

    @property
    def status_name(self) -> HoldStatusName:
        """The status as callers read it."""
        return cast("HoldStatusName", HoldStatus(self.status).name.lower())

    def metadata(self) -> dict[str, str] | None:
        """Return what was attached to it."""
        content: dict[str, Any] = msgspec.json.decode(self.content) if self.content else {}
        return content.get("metadata")


def list_holds(status: HoldStatus | None, *, upwards: bool) -> str:
    """Return the statement for a page of an account's holds between two numbers: a range of an index."""
    condition = "" if status is None else f"and {_OF_STATUS[status]}"
    direction = "asc" if upwards else "desc"
    return f"""{_HOLD} and h.seq > %(above)s and h.seq < %(below)s {condition}
order by h.seq {direction} limit %(count)s
"""


def hold(identifier: str) -> Reading[HoldRow | None]:
    """Return the hold, or None if the store has none of this id."""
    position = hold_position_of(identifier)
    if position is None:
        return None
    rows = yield Query(READ_HOLD, {"account": position.account_id[4:], "seq": position.seq})
    return hold_row(rows[0]) if rows else None


def known_hold(identifier: str) -> Reading[HoldRow]:
    """Return the hold.

    Raises:
        HoldNotFound: the store has none of this id.
    """
    found = yield from hold(identifier)
    if found is None:
        raise HoldNotFound(details={"hold_id": identifier})
    return found


def holds_between(
    account_id: str, status: HoldStatus | None, above: int, below: int, count: int, *, upwards: bool = False
) -> Reading[list[HoldRow]]:
    """Return the account's holds between two numbers, newest first, or upwards from the lower one, oldest first."""
    values = {"account": account_id[4:], "above": above, "below": below, "count": count}
    rows = yield Query(list_holds(status, upwards=upwards), values)
    return [hold_row(row) for row in rows]


def holds_of(account_id: str, status: HoldStatus | None) -> PageAfter[HoldRow]:
    """Return what reads the account's holds, or those of a status, newest first. Raises AccountNotFound."""

    def page(last: HoldRow | None, count: int) -> Reading[Page[HoldRow]]:
        below = ABOVE_EVERY_SEQ if last is None else last.seq
        rows = yield from holds_between(account_id, status, 0, below, count)
        if not rows and last is None:
            yield from account(account_id)
        return page_of(rows, count)

    return page


def hold_row(row: Sequence[Any]) -> HoldRow:
    """Return what Postgres gave for a hold."""
    return HoldRow(ACCOUNT_PREFIX + row[0].hex, *row[1:])


def hold_of(row: HoldRow, store_id: str) -> AccountHold:
    """Return the hold of this store."""
    return AccountHold(
        id=row.id,
        store_id=store_id,
        account_id=row.account_id,
        status=row.status_name,
        amount=int(row.amount),
        captured=int(row.captured),
        remaining=int(row.remaining),
        reference=row.reference,
        expires_at=moment_of(row.expires_us),
        created_at=moment_of(row.created_us),
        ended_at=None if row.ended_us is None else moment_of(row.ended_us),
        metadata=row.metadata(),
    )
