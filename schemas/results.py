"""The result of a command, as callers see it, made from a journal row or from an announcement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from .accounts import used_of_limit
from .errors import (
    REJECTIONS,
    AccountHasHolds,
    AccountOverdrawn,
    CaptureExceedsHold,
    CommandDeadLettered,
    CreditlaneError,
    CreditLimitInUse,
    MaxBalanceExceeded,
    ReversalExceedsOriginal,
    UpgradeUnfinished,
)
from .identifiers import hold_id, transaction_id
from .journal import MAX_BALANCE, NAME_TAKEN_BY, Announcement, JournalRow, Refusal
from .kinds import SIDE_NAMES, Kind, shortfall_of_row

#: What a refusal says of the account that stands in the way of a transaction, by its code.
_OBSTACLES = {
    "insufficient_balance": ("account_id", "needed", "available"),
    MaxBalanceExceeded.code: ("account_id", "needed", "room"),
}

#: The kinds of what is done with a hold, and of what says when it ends.
_ON_HOLD = frozenset({Kind.CAPTURE, Kind.VOID, Kind.EXTEND, Kind.EXPIRY})
_SETS_END = frozenset({Kind.HOLD, Kind.EXTEND})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_of(microseconds: int) -> datetime:
    """Return the moment that is this many microseconds after 1970 in UTC, without passing through a float."""
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds_of(moment: datetime) -> int:
    """Return how many microseconds after 1970 in UTC the moment is: the inverse of `moment_of`."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_text(moment: datetime) -> str:
    """Return the moment as responses and events have it: ISO 8601 in UTC, with milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class ErrorDetail(BaseModel):
    """Why a command was not applied."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    code: str
    message: str
    details: dict[str, Any] = {}


class DryRunEntry(BaseModel):
    """An entry that a dry run would have made."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    account_id: str
    side: Literal["credit", "debit"]
    amount: int
    #: Balance of its account after it.
    balance_after: int


class Result(BaseModel):
    """What became of a command.

    `queued`: accepted and not decided yet. `applied`: done, once. `rejected`: decided against, for ever, see `error`;
    but `upgrade_unfinished`, which nothing remembers: the same may be sent again.
    `dead_lettered`: it could not be decided; an operator sees it and can replay it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    status: Literal["queued", "applied", "rejected", "dead_lettered"]
    account_id: str
    idempotency_key: str
    #: What was asked for, as `Command.kind` names it; None while queued.
    kind: str | None = None
    #: The transaction it made; None where no money moved.
    transaction_id: str | None = None
    side: Literal["credit", "debit"] | None = None
    amount: int | None = None
    #: Balance of the account after the command.
    balance: int | None = None
    #: Of a debit with `allow_partial`: how much less than asked for it took, 0 where it took all. None of any other.
    shortfall: int | None = None
    reference: str | None = None
    #: Of a reversal: the transaction it undoes.
    reversal_of: str | None = None
    #: The hold that it made, or was about.
    hold_id: str | None = None
    #: Of a hold that was made or extended: when what is left of it is released by itself.
    expires_at: datetime | None = None
    #: The answer was on record before this attempt.
    replayed: bool = False
    error: ErrorDetail | None = None
    decided_at: datetime | None = None
    #: It is what would have happened, and nothing has. There is no transaction, unless the answer was on record before.
    dry_run: bool = False
    #: Of a dry run: the entries that there would have been, in the order asked for. None of any other.
    entries: tuple[DryRunEntry, ...] | None = None

    def raise_for_rejection(self) -> None:
        """Raise the error that stands for this result, if it was rejected or dead-lettered."""
        if self.error is None:
            return
        rejection = REJECTIONS.get(self.error.code)
        if rejection is not None:
            raise rejection(self.error.message, details=self.error.details)
        if self.error.code == CommandDeadLettered.code:
            raise CommandDeadLettered(self.error.message)
        if self.error.code == UpgradeUnfinished.code:
            raise UpgradeUnfinished(self.error.message)
        raise CreditlaneError(f"{self.error.code}: {self.error.message}")


def result_of_row(row: JournalRow, *, replayed: bool = False) -> Result:
    """Return the result that a journal row records."""
    moved = row.seq > 0
    return Result(
        status="rejected" if row.rejection else "applied",
        account_id=row.account_id,
        idempotency_key=row.idempotency_key,
        kind=Kind(row.kind).word,
        transaction_id=row.transaction_id,
        side=SIDE_NAMES.get(row.side),
        amount=row.amount,
        balance=row.balance_after,
        shortfall=shortfall_of_row(row),
        reference=row.reference,
        reversal_of=transaction_id(row.account_id, row.reversal_of) if moved and row.reversal_of else None,
        hold_id=hold_id_of_row(row) if row.kind >= Kind.HOLD else None,
        expires_at=hold_end_of_row(row) if row.kind >= Kind.HOLD else None,
        replayed=replayed,
        error=_error_of(row) if row.rejection else None,
        decided_at=moment_of(row.created_at_us),
    )


def hold_id_of_row(row: JournalRow) -> str | None:
    """Return the id of the hold that this row made, or is about; None if it is about none."""
    if row.kind == Kind.HOLD:
        return None if row.rejection else hold_id(row.account_id, -row.seq)
    if row.kind not in _ON_HOLD:
        return None
    return str(_content_of(row)["hold_id"])


def hold_end_of_row(row: JournalRow) -> datetime | None:
    """Return when the hold ends that this row made or extended; None of any other row."""
    end = None if row.rejection or row.kind not in _SETS_END else _content_of(row)["ends_at"]
    return None if end is None else datetime.fromisoformat(end)


def _content_of(row: JournalRow) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.json.decode(row.content) if row.content else {}
    return content


def result_of_refusal(refusal: Refusal, account_id: str, idempotency_key: str) -> Result:
    """Return the result of a command that left no journal row."""
    return Result(
        status="dead_lettered" if refusal.code == CommandDeadLettered.code else "rejected",
        account_id=account_id,
        idempotency_key=idempotency_key,
        error=ErrorDetail(code=refusal.code, message=refusal.message, details=refusal.details),
    )


def result_of_announcement(announcement: Announcement, account_id: str, idempotency_key: str) -> Result:
    """Return the result that was announced for the command of this account and key."""
    if announcement.refusal is not None:
        result = result_of_refusal(announcement.refusal, account_id, idempotency_key)
    elif announcement.row is None:
        raise CreditlaneError("an announcement has neither a row nor a refusal")
    else:
        result = result_of_row(announcement.row, replayed=announcement.replayed)
    return as_dry_run(result, announcement.row, announcement.further) if announcement.dry_run else result


def as_dry_run(result: Result, row: JournalRow | None, further: Sequence[JournalRow]) -> Result:
    """Return the result as that of a dry run: what was not on record before was not made, and has no id."""
    if row is None or result.replayed:
        return result.model_copy(update={"dry_run": True})
    entries = tuple(
        DryRunEntry(
            account_id=entry.account_id,
            side=SIDE_NAMES[entry.side],
            amount=entry.amount or 0,
            balance_after=entry.balance_after,
        )
        for entry in (row, *further)
        if entry.seq > 0
    )
    gone = {"dry_run": True, "transaction_id": None, "entries": entries}
    return result.model_copy(update={**gone, "hold_id": None} if row.kind == Kind.HOLD else gone)


def _error_of(row: JournalRow) -> ErrorDetail:
    code = row.rejection or ""
    rejection = REJECTIONS.get(code)
    message = rejection().message if rejection else code
    details: dict[str, Any] = {}
    content = msgspec.json.decode(row.content) if row.content else {}
    obstacle = content.get("obstacle")
    if NAME_TAKEN_BY in content:
        details = {"account_id": content[NAME_TAKEN_BY]}
        message = f"{message} It is {content[NAME_TAKEN_BY]}."
    elif obstacle:
        details = {name: obstacle[name] for name in _OBSTACLES.get(code, ("account_id",))}
        message = f"{obstacle['account_id']}: {message}"
    elif code == "insufficient_balance" and row.amount is not None:
        details = {"needed": str(row.amount), "available": str(row.available)}
        message = f"The account has {row.available} available, and {row.amount} is needed. {message}"
    elif code == ReversalExceedsOriginal.code:
        details = {"amount": str(row.amount), "remaining": content["remaining"]}
        message = f"{details['remaining']} is left of the transaction, and {row.amount} was to be reversed. {message}"
    elif code == AccountOverdrawn.code:
        details = {"balance": str(row.balance_after)}
    elif code == AccountHasHolds.code:
        details = {"held": str(row.held_after)}
    elif code == CaptureExceedsHold.code:
        details = {"remaining": content["remaining"]}
        message = f"{content['remaining']} is left of the hold. {message}"
    elif code == CreditLimitInUse.code:
        used = used_of_limit(row.balance_after, row.held_after)
        details = {"used": str(used)}
        message = f"{used} of the credit limit is used. {message}"
    elif code == MaxBalanceExceeded.code and row.amount is not None:
        room = max(0, int(content[MAX_BALANCE]) - row.balance_after)
        details = {"needed": str(row.amount), "room": str(room), "max_balance": content[MAX_BALANCE]}
        message = f"The account has room for {room}, and {row.amount} is needed. {message}"
    return ErrorDetail(code=code, message=message, details=details)
