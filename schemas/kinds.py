"""The kinds of command: all that the other rooms need to know of a kind, in one record.

From these derive the union of commands that is read off a lane, the ledger's table of rules, the lines of the batch
endpoint, what the client sends, the CHECKs of the journal, the events that a row makes, the responses in the OpenAPI
document and what the audit expects. The fields of a command are in `commands`; what it does to an account is the rule
of its kind in `worker/ledger/decide.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Union

import msgspec

from .commands import (
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Expiry,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    SetLimit,
    Unfreeze,
    Void,
    reversed_transaction,
)
from .errors import (
    REJECTIONS,
    AccountClosed,
    AccountExists,
    AccountFrozen,
    AccountHasHolds,
    AccountNameTaken,
    AccountNotFound,
    AccountNotFrozen,
    AccountOverdrawn,
    AlreadyReversed,
    CaptureExceedsHold,
    CreditLimitInUse,
    ExpiresAtOutOfRange,
    HoldCaptured,
    HoldExpired,
    HoldNotFound,
    HoldVoided,
    InsufficientBalance,
    MaxBalanceExceeded,
    Rejected,
    ReversalExceedsOriginal,
    ReversalNotDivisible,
    ReversalNotReversible,
    TooManyHolds,
    TransactionNotFound,
    UnbalancedTransaction,
)
from .events import EventType
from .statuses import Status

if TYPE_CHECKING:
    from .journal import JournalRow

CREDIT_SIDE = 1
DEBIT_SIDE = -1
#: Side of a row that moves nothing and names no amount.
NO_SIDE = 0
SIDE_NAMES = {CREDIT_SIDE: "credit", DEBIT_SIDE: "debit"}
SIDES = {name: side for side, name in SIDE_NAMES.items()}

Content = dict[str, Any]

#: In the content of a debit that takes what is available where that is less: what it asked for, as digits.
ASKED = "asked"


def _stored_content(row: JournalRow) -> Content:
    content: Content = msgspec.json.decode(row.content) if row.content else {}
    return content


def _content_of_opening(row: JournalRow) -> Content:
    content = _stored_content(row)
    texts = {name: content[name] for name in ("customer_id", "name", "unit_label")}
    amounts = {name: int(content[name]) for name in ("initial_balance", "overdraft_limit")}
    return {**texts, **amounts, "metadata": content.get("metadata")}


def _content_of_credit_or_debit(row: JournalRow) -> Content:
    return {"amount": row.amount, "reference": row.reference, "metadata": _stored_content(row).get("metadata")}


def _content_of_debit(row: JournalRow) -> Content:
    content, asked = _content_of_credit_or_debit(row), asked_of_row(row)
    return {**content, "amount": row.amount if asked is None else asked, "allow_partial": asked is not None}


def asked_of_row(row: JournalRow) -> int | None:
    """Return what a debit asked for that takes less where there is less; None of any other row."""
    return _asked_of(row.kind, _stored_content(row))


def _asked_of(kind: int, content: Content) -> int | None:
    asked = content.get(ASKED) if kind == Kind.DEBIT else None
    return None if asked is None else int(asked)


def shortfall_of_entry(kind: int, amount: int, content: Content) -> int | None:
    """Return how much less than asked for an entry took, by its content; None where it was not to take less."""
    asked = _asked_of(kind, content)
    return None if asked is None else asked - amount


def shortfall_of_row(row: JournalRow) -> int | None:
    """Return how much less than asked for a debit took; None where it was not to take less, or took nothing."""
    return shortfall_of_entry(row.kind, row.amount or 0, _stored_content(row)) if row.seq > 0 and row.content else None


def _content_of_post(row: JournalRow) -> Content:
    content = _stored_content(row)
    names = ("account_id", "side", "amount")
    entries = tuple(PostEntry(**{name: entry[name] for name in names}) for entry in content["entries"])
    return {"reference": content["reference"], "entries": entries, "metadata": content.get("metadata")}


def _content_of_reversal(row: JournalRow) -> Content:
    # The key of a reversal names the transaction; the row of an unknown one has no other column for it. An amount
    # stands in the content where one was asked for: the column has what a whole one undoes, too.
    asked = _stored_content(row).get("amount")
    return {
        "transaction_id": reversed_transaction(row.idempotency_key),
        "amount": None if asked is None else int(asked),
    }


def _asked(content: Content, *names: str) -> Content:
    return {name: content.get(name) for name in names}


def _end_asked(content: Content) -> Content:
    end = content.get("expires_at")
    return {
        "expires_in_seconds": content.get("expires_in_seconds"),
        "expires_at": None if end is None else datetime.fromisoformat(end),
    }


def _content_of_hold(row: JournalRow) -> Content:
    content = _stored_content(row)
    return {"amount": row.amount, "reference": row.reference, **_asked(content, "metadata"), **_end_asked(content)}


def _content_of_capture(row: JournalRow) -> Content:
    content = _stored_content(row)
    amount = content.get("amount")
    asked = _asked(content, "hold_id", "final", "allow_overage", "reference", "metadata")
    return {**asked, "amount": None if amount is None else int(amount)}


def _content_of_void(row: JournalRow) -> Content:
    return _asked(_stored_content(row), "hold_id")


def _content_of_extend(row: JournalRow) -> Content:
    content = _stored_content(row)
    return {**_asked(content, "hold_id"), **_end_asked(content)}


def _content_of_limit(row: JournalRow) -> Content:
    content = _stored_content(row)
    amount = content.get("amount")
    return {"limit": content["limit"], "amount": None if amount is None else int(amount)}


class KindRecord(NamedTuple):
    """What there is to know of a kind of command."""

    model: type[Command]
    #: The events that an applied row makes, by its side; so the keys are the sides that it can have. A row without a
    #: side is a decision that moves nothing, any other is an entry; there may be both. A rejection is always a
    #: decision, sent as `command.rejected`.
    events: Mapping[int, tuple[EventType, ...]]
    #: Why its rule may reject it. A key that belongs to another request is refused whatever the kind.
    rejections: tuple[type[Rejected], ...]
    #: Status of the HTTP response to one that is applied.
    http_status: int
    #: Status of the account after one that is applied; None where the status stays as it is.
    status_after: Status | None = None
    #: It may touch accounts beside the one that it is addressed to, and their lanes.
    spans_accounts: bool = False
    #: Made by the ledger's own processes: no caller can send one.
    internal: bool = False
    #: What was asked for, by the names in `Command.content_fields`, as the journal row that it left has it.
    content_of: Callable[[JournalRow], Content] = _stored_content


_NOT_ACTIVE = (AccountNotFound, AccountFrozen, AccountClosed)
_NO_OPEN_HOLD = (HoldNotFound, HoldCaptured, HoldVoided, HoldExpired)


class Kind(IntEnum):
    """A kind of command, by its number in the journal. The numbers are stored; they never change."""

    record: KindRecord
    #: The kind as commands, results and events spell it.
    word: str

    OPEN_ACCOUNT = (
        1,
        KindRecord(
            OpenAccount,
            events={CREDIT_SIDE: ("account.created", "credits.granted"), NO_SIDE: ("account.created",)},
            rejections=(AccountExists, AccountNameTaken),
            http_status=201,
            status_after=Status.ACTIVE,
            content_of=_content_of_opening,
        ),
    )
    CREDIT = (
        2,
        KindRecord(
            Credit,
            events={CREDIT_SIDE: ("credits.granted",)},
            rejections=(*_NOT_ACTIVE, MaxBalanceExceeded),
            http_status=201,
            content_of=_content_of_credit_or_debit,
        ),
    )
    DEBIT = (
        3,
        KindRecord(
            Debit,
            events={DEBIT_SIDE: ("credits.consumed", "balance.low")},
            rejections=(*_NOT_ACTIVE, InsufficientBalance),
            http_status=201,
            content_of=_content_of_debit,
        ),
    )
    REVERSE = (
        4,
        KindRecord(
            Reverse,
            events={CREDIT_SIDE: ("credits.reversed",), DEBIT_SIDE: ("credits.reversed", "balance.low")},
            rejections=(
                *_NOT_ACTIVE,
                TransactionNotFound,
                ReversalNotReversible,
                ReversalNotDivisible,
                AlreadyReversed,
                ReversalExceedsOriginal,
                InsufficientBalance,
            ),
            http_status=201,
            spans_accounts=True,
            content_of=_content_of_reversal,
        ),
    )
    FREEZE = (
        5,
        KindRecord(
            Freeze,
            events={NO_SIDE: ("account.frozen",)},
            rejections=_NOT_ACTIVE,
            http_status=200,
            status_after=Status.FROZEN,
        ),
    )
    UNFREEZE = (
        6,
        KindRecord(
            Unfreeze,
            events={NO_SIDE: ("account.unfrozen",)},
            rejections=(AccountNotFound, AccountNotFrozen, AccountClosed),
            http_status=200,
            status_after=Status.ACTIVE,
        ),
    )
    CLOSE = (
        7,
        KindRecord(
            Close,
            events={NO_SIDE: ("account.closed",)},
            rejections=(AccountNotFound, AccountClosed, AccountOverdrawn, AccountHasHolds),
            http_status=200,
            status_after=Status.CLOSED,
        ),
    )
    POST = (
        8,
        KindRecord(
            Post,
            events={CREDIT_SIDE: ("credits.granted",), DEBIT_SIDE: ("credits.consumed", "balance.low")},
            rejections=(*_NOT_ACTIVE, UnbalancedTransaction, InsufficientBalance, MaxBalanceExceeded),
            http_status=201,
            spans_accounts=True,
            content_of=_content_of_post,
        ),
    )
    HOLD = (
        9,
        KindRecord(
            Hold,
            events={NO_SIDE: ("hold.created",)},
            rejections=(*_NOT_ACTIVE, ExpiresAtOutOfRange, InsufficientBalance, TooManyHolds),
            http_status=201,
            content_of=_content_of_hold,
        ),
    )
    CAPTURE = (
        10,
        KindRecord(
            Capture,
            events={DEBIT_SIDE: ("credits.consumed", "hold.captured", "balance.low")},
            rejections=(*_NOT_ACTIVE, *_NO_OPEN_HOLD, CaptureExceedsHold, InsufficientBalance),
            http_status=201,
            content_of=_content_of_capture,
        ),
    )
    VOID = (
        11,
        KindRecord(
            Void,
            events={NO_SIDE: ("hold.voided",)},
            rejections=(AccountNotFound, AccountClosed, *_NO_OPEN_HOLD),
            http_status=200,
            content_of=_content_of_void,
        ),
    )
    EXTEND = (
        12,
        KindRecord(
            Extend,
            events={NO_SIDE: ("hold.extended",)},
            rejections=(*_NOT_ACTIVE, *_NO_OPEN_HOLD, ExpiresAtOutOfRange),
            http_status=200,
            content_of=_content_of_extend,
        ),
    )
    EXPIRY = (
        13,
        KindRecord(
            Expiry,
            events={NO_SIDE: ("hold.expired",)},
            rejections=(),
            http_status=200,
            internal=True,
        ),
    )
    SET_LIMIT = (
        14,
        KindRecord(
            SetLimit,
            events={NO_SIDE: ("account.limit_changed",)},
            rejections=(AccountNotFound, AccountClosed, CreditLimitInUse),
            http_status=200,
            content_of=_content_of_limit,
        ),
    )

    # Without the default the type checker would ask for a record where a number is looked up: Kind(2).
    def __new__(cls, number: int, record: KindRecord | None = None) -> Self:
        if record is None:
            raise TypeError(f"the kind of number {number} has no record")
        member = int.__new__(cls, number)
        member._value_ = number
        member.record = record
        member.word = record.model.model_fields["kind"].default
        return member

    @property
    def entry_sides(self) -> frozenset[int]:
        """The sides that its entries may have; none where it only decides."""
        return frozenset(self.record.events) - {NO_SIDE}


def checked(kinds: Iterable[Kind]) -> Mapping[str, Kind]:
    """Return the kinds by their words, if every record is whole.

    Raises:
        TypeError: a model is called otherwise than its kind, or a rejection has no code for callers.
    """
    for kind in kinds:
        if kind.word != kind.name.lower():
            raise TypeError(f"{kind.record.model.__name__}.kind is {kind.word!r}, the model of Kind.{kind.name}")
        unknown = [rejection.__name__ for rejection in kind.record.rejections if rejection.code not in REJECTIONS]
        if unknown:
            raise TypeError(f"{kind.word}: {', '.join(unknown)} is no rejection of the ledger")
    return {kind.word: kind for kind in kinds}


KIND_OF_WORD: Mapping[str, Kind] = checked(Kind)
MODELS: tuple[type[Command], ...] = tuple(kind.record.model for kind in Kind)
#: Those that callers may send.
SENDABLE_MODELS: tuple[type[Command], ...] = tuple(kind.record.model for kind in Kind if not kind.record.internal)
#: One of the models, known by the field `kind`. A value and no name for annotations, which would be a list again.
ANY_MODEL: Any = Union[MODELS]  # noqa: UP007  # made of what is known when this is imported
#: The kinds whose commands may touch several accounts.
SPANNING = frozenset(kind for kind in Kind if kind.record.spans_accounts)
SPANNING_WORDS = frozenset(kind.word for kind in SPANNING)
#: Those that change the status of an account that is there already.
STATUS_CHANGES = frozenset(kind for kind in Kind if kind.record.status_after and kind is not Kind.OPEN_ACCOUNT)
STATUS_CHANGE_WORDS = frozenset(kind.word for kind in STATUS_CHANGES)


def content_of_row(row: JournalRow) -> Content:
    """Return what was asked for by the command that this row records: its content fields, by name."""
    return Kind(row.kind).record.content_of(row)
