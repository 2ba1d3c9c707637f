"""The commands a producer can put on a lane: frozen, validated when made, encoded once.

Each names its store, its account and its idempotency key. `store_id` may be left out where a client sends the command:
the client's own store is filled in. Nothing here knows what a command does; that is the ledger's business.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from .account_names import name_key, seen_pattern
from .amounts import Amount, AmountOrZero, parse_amount
from .identifiers import (
    ACCOUNT_ID_PATTERN,
    HOLD_ID_PATTERN,
    MAX_TRANSACTION_ID_CHARACTERS,
    STORE_ID_PATTERN,
    TRANSACTION_ID_PATTERN,
    hold_position_of,
)
from .urls import TargetUrl

#: Version of the command format on the lanes.
COMMAND_VERSION = 1
#: Longest idempotency key, reference, customer id and unit label, in characters.
MAX_TEXT_CHARACTERS = 255
#: Longest account name, in characters.
MAX_NAME_CHARACTERS = 100
#: Most pairs of metadata on one account or transaction.
MAX_METADATA_PAIRS = 50
#: Longest key of metadata, in characters.
MAX_METADATA_KEY_CHARACTERS = 40
#: Longest value of metadata, in characters.
MAX_METADATA_VALUE_CHARACTERS = 500
#: Most entries of one transaction.
MAX_ENTRIES = 100
#: Idempotency keys of this prefix belong to reversals.
REVERSAL_KEY_PREFIX = "reversal:"
#: Idempotency keys of this prefix belong to the ends of holds: what follows is the rest of the hold's id.
EXPIRY_KEY_PREFIX = "expiry:cch_"
#: Both, as `str.startswith` takes them.
RESERVED_KEY_PREFIXES = (REVERSAL_KEY_PREFIX, EXPIRY_KEY_PREFIX)
#: How long a hold may last, in seconds, and for how long it does where nothing is said: as authorisations of cards do.
MAX_HOLD_SECONDS = 366 * 86_400
DEFAULT_HOLD_SECONDS = 7 * 86_400
#: Most open holds of one account.
MAX_OPEN_HOLDS = 1_000
#: Longest key of a reversal, in characters: that of a caller, behind the prefix and the longest id of a transaction.
MAX_REVERSAL_KEY_CHARACTERS = len(REVERSAL_KEY_PREFIX) + MAX_TRANSACTION_ID_CHARACTERS + 1 + MAX_TEXT_CHARACTERS

#: Postgres text cannot hold NUL.
WITHOUT_NUL = r"^[^\x00]+$"
WITHOUT_NUL_OR_EMPTY = r"^[^\x00]*$"


def _caller_key(key: str) -> str:
    if key.startswith(REVERSAL_KEY_PREFIX):
        raise PydanticCustomError("reserved_key", "must not start with 'reversal:', which belongs to reversals")
    if key.startswith(EXPIRY_KEY_PREFIX):
        raise PydanticCustomError("reserved_key", "must not start with 'expiry:cch_', which belongs to ends of holds")
    return key


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("moment", "must be a moment of the years 1 to 9999 in UTC") from None


def _hold_seconds(value: object) -> int:
    digits = type(value) is str and value.isascii() and value.isdigit() and len(value) <= len(str(MAX_HOLD_SECONDS))
    if type(value) is int or digits:
        seconds = int(value)  # type: ignore[call-overload]  # an int or digits, as it says above
        if 1 <= seconds <= MAX_HOLD_SECONDS:
            return int(seconds)
    raise PydanticCustomError(
        "hold_seconds", f"must be a whole number of seconds from 1 to {MAX_HOLD_SECONDS}, which is 366 days"
    )


def _visible_name(name: str) -> str:
    if not name_key(name):
        raise PydanticCustomError("blank_name", "must contain more than white space and what nobody sees")
    return name


def reversal_key(attempt_key: str) -> str:
    """Return the key that the reversal has if the attempt of this key makes it, without an amount."""
    return ":".join(attempt_key.split(":", 2)[:2])


def reversed_transaction(key: str) -> str:
    """Return the transaction that the reversal or the attempt of this key is about."""
    return reversal_key(key).removeprefix(REVERSAL_KEY_PREFIX)


def bounds_of_part_keys(transaction_id: str) -> tuple[str, str]:
    """Return the keys between which those of the transaction's partial reversals stand, in the order of bytes."""
    # What follows a colon comes before a semicolon.
    whole = REVERSAL_KEY_PREFIX + transaction_id
    return f"{whole}:", f"{whole};"


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, pattern=WITHOUT_NUL)]
#: What a schema shows of the two rules that follow after it: a reserved prefix, and something to see.
_NOT_RESERVED = {"not": {"pattern": f"^({'|'.join(RESERVED_KEY_PREFIXES)})"}}
_VISIBLE = {"pattern": seen_pattern()}

Key = Annotated[Text, Field(json_schema_extra=_NOT_RESERVED), AfterValidator(_caller_key)]
_ReversalKey = Annotated[str, Field(min_length=1, max_length=MAX_REVERSAL_KEY_CHARACTERS, pattern=WITHOUT_NUL)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=WITHOUT_NUL, json_schema_extra=_VISIBLE),
    AfterValidator(_visible_name),
]
AccountId = Annotated[str, Field(pattern=ACCOUNT_ID_PATTERN)]
TransactionId = Annotated[str, Field(pattern=TRANSACTION_ID_PATTERN)]
HoldId = Annotated[str, Field(pattern=HOLD_ID_PATTERN)]
HoldSeconds = Annotated[int, BeforeValidator(_hold_seconds), Field(strict=True, ge=1, le=MAX_HOLD_SECONDS)]
#: How many holds a command is thought to end.
HoldCount = Annotated[int, BeforeValidator(parse_amount), Field(strict=True, le=MAX_OPEN_HOLDS)]
#: An aware time, kept in UTC.
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=MAX_METADATA_KEY_CHARACTERS, pattern=WITHOUT_NUL)],
        Annotated[str, Field(max_length=MAX_METADATA_VALUE_CHARACTERS, pattern=WITHOUT_NUL_OR_EMPTY)],
    ],
    # The schema names the keys by a pattern, and without this would allow any others beside them.
    Field(max_length=MAX_METADATA_PAIRS, json_schema_extra={"additionalProperties": False}),
]
StoreId = Annotated[str, Field(pattern=STORE_ID_PATTERN)]


class Command(BaseModel):
    """What every command carries. Use one of the subclasses.

    Raises:
        pydantic.ValidationError: a field breaks its rule; the error names the field and what is allowed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = Field(default=1, alias="v", repr=False)
    store_id: StoreId | None = None
    account_id: AccountId
    idempotency_key: Key
    #: Where the result is sent once there is one. A retry may name another: it is the same request.
    callback_url: TargetUrl | None = None
    #: Decide it in its turn and say what would have happened, and leave nothing: no row, no key, no event, and nothing
    #: is sent to the callback. It is no part of what makes two commands the same request.
    dry_run: bool = False

    #: The fields besides account and key that make two commands of one kind the same request: all that a kind adds.
    content_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let a field that is added to a kind count, so that nobody can forget to say so."""
        cls.content_fields = tuple(name for name in cls.model_fields if name not in {*Command.model_fields, "kind"})


class OpenAccount(Command):
    """Open an account for a customer, with an initial balance if wanted.

    Without `account_id` the id is derived from store and key when the command is sent, so that a retry finds the
    first account. Without `idempotency_key` every attempt is an account of its own (but for the name).
    """

    kind: Literal["open_account"] = "open_account"
    account_id: AccountId | None = None  # type: ignore[assignment]  # the client fills it in before it is sent
    idempotency_key: Key = Field(default_factory=lambda: f"open:{uuid4()}")
    customer_id: Text
    name: Name = "default"
    unit_label: Text = "credits"
    initial_balance: AmountOrZero = 0
    #: How far below zero debits may take the balance.
    overdraft_limit: AmountOrZero = 0
    metadata: Metadata | None = None


class _CreditOrDebit(Command):
    amount: Amount
    reference: Text
    metadata: Metadata | None = None


class Credit(_CreditOrDebit):
    """Add `amount` to the account's balance."""

    kind: Literal["credit"] = "credit"


class Debit(_CreditOrDebit):
    """Take `amount` from the account's balance; rejected as `insufficient_balance` if it is not there."""

    kind: Literal["debit"] = "debit"
    #: Take what is available where that is less than `amount`, and say what is missing. Rejected only where nothing is
    #: available, for an entry moves something.
    allow_partial: bool = False


class PostEntry(BaseModel):
    """One side of a multi-entry transaction."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    account_id: AccountId
    side: Literal["credit", "debit"]
    amount: Amount


class Post(Command):
    """Move amounts between accounts of the store, all or nothing; the entries apply in the order given.

    Debits must equal credits, else it is rejected as `unbalanced_transaction`. It is decided in the lane of its first
    entry's account.
    """

    kind: Literal["post"] = "post"
    account_id: AccountId | None = None  # type: ignore[assignment]  # follows from the entries
    reference: Text
    entries: Annotated[tuple[PostEntry, ...], Field(min_length=2, max_length=MAX_ENTRIES, strict=False)]
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _fix_account(self) -> Self:
        first = self.entries[0].account_id
        if self.account_id not in {None, first}:
            raise PydanticCustomError("post_account", "account_id must be the first entry's account; leave it out")
        self.__dict__["account_id"] = first
        return self


class Reverse(Command):
    """Undo a transaction by a new, opposite one, on every account that it touched: all that is left of it.

    `account_id` is the account of the transaction's first entry, in whose lane it was decided. Its own key is
    ``reversal:<transaction id>:<attempt>``, made when it is left out. The reversal that is made has the key
    ``reversal:<transaction id>``: reversing twice gives the first reversal, and a refused attempt, of a frozen account
    perhaps, can be followed by another.

    With an `amount` it undoes so much of a transaction of one entry, as often as something is left of it, each time
    under a key of the caller's own, which is required. It is kept as ``reversal:<transaction id>:<key>``, and may be
    given in that form, too. It is like any other key: for ever one request and one answer.
    """

    kind: Literal["reverse"] = "reverse"
    transaction_id: TransactionId
    idempotency_key: _ReversalKey = ""
    #: How much is undone; None: all that is left.
    amount: Amount | None = None

    @model_validator(mode="before")
    @classmethod
    def _fix_key(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("transaction_id"), str):
            return data
        prefix = f"{REVERSAL_KEY_PREFIX}{data['transaction_id']}:"
        if data.get("amount") is not None:
            return {**data, "idempotency_key": _key_of_partial(prefix, data.get("idempotency_key"))}
        attempt = data.get("idempotency_key", f"{prefix}{uuid4().hex}")
        if not isinstance(attempt, str) or not attempt.startswith(prefix) or len(attempt) > MAX_TEXT_CHARACTERS:
            raise PydanticCustomError(
                "reversal_key", f"idempotency_key of a reversal begins with {prefix}; leave it out"
            )
        return {**data, "idempotency_key": attempt}


def _key_of_partial(prefix: str, key: Any) -> str:
    """Return the whole key of a partial reversal, of the caller's own or of the whole one."""
    if not isinstance(key, str):
        raise PydanticCustomError("partial_key", "idempotency_key is required with an amount, as a text of its own")
    own = key.removeprefix(prefix)
    if not 1 <= len(own) <= MAX_TEXT_CHARACTERS:
        raise PydanticCustomError("partial_key", f"idempotency_key must have 1 to {MAX_TEXT_CHARACTERS} characters")
    return prefix + _caller_key(own)


class Freeze(Command):
    """Stop all movement on an active account until it is unfrozen."""

    kind: Literal["freeze"] = "freeze"


class Unfreeze(Command):
    """Let a frozen account move again."""

    kind: Literal["unfreeze"] = "unfreeze"


class Close(Command):
    """Close an account for good. It stays readable, and its name is free again.

    Rejected as `account_overdrawn` while the balance is below zero, and as `account_has_holds` while holds are open.
    """

    kind: Literal["close"] = "close"


def _check_one_end(expires_in_seconds: int | None, expires_at: datetime | None) -> None:
    if expires_in_seconds is not None and expires_at is not None:
        raise PydanticCustomError("two_ends", "give expires_in_seconds or expires_at, and not both")


class Hold(Command):
    """Set `amount` of the balance aside, so that nothing else can take it, until a `Capture`, a `Void` or its end.

    Rejected as `insufficient_balance` if it is not available, and as `expires_at_out_of_range` if `expires_at` is not
    after the moment at which it is decided, or more than 366 days after it. Without an end it lasts seven days.
    """

    kind: Literal["hold"] = "hold"
    amount: Amount
    reference: Text
    #: How long it lasts from when it is decided. Or `expires_at`.
    expires_in_seconds: HoldSeconds | None = None
    expires_at: Moment | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        _check_one_end(self.expires_in_seconds, self.expires_at)
        return self


class _OnHold(Command):
    """What is done with a hold, on its account's lane: the id says which account that is."""

    account_id: AccountId | None = None  # type: ignore[assignment]  # follows from the hold
    hold_id: HoldId

    @model_validator(mode="after")
    def _fix_account(self) -> Self:
        position = hold_position_of(self.hold_id)
        if position is None or self.account_id not in {None, position.account_id}:
            raise PydanticCustomError("hold_account", "account_id must be the hold's account; leave it out")
        self.__dict__["account_id"] = position.account_id
        return self


class Capture(_OnHold):
    """Debit what a hold has set aside, whole or in parts.

    Rejected as `capture_exceeds_hold` above what is left, unless `allow_overage` is given: then the rest is taken from
    what is available, or it is rejected as `insufficient_balance`.
    """

    kind: Literal["capture"] = "capture"
    #: All that is left where it is left out.
    amount: Amount | None = None
    #: It is the last one: what it leaves of the hold is released.
    final: bool = True
    allow_overage: bool = False
    #: The hold's where it is left out.
    reference: Text | None = None
    metadata: Metadata | None = None


class Void(_OnHold):
    """Release what is left of a hold. Works on a frozen account as well, since it only gives back."""

    kind: Literal["void"] = "void"


class Extend(_OnHold):
    """Move the end of a hold, to later or to earlier, from the moment at which this is decided."""

    kind: Literal["extend"] = "extend"
    #: How long it lasts from when this is decided. Or `expires_at`, and one of both.
    expires_in_seconds: HoldSeconds | None = None
    expires_at: Moment | None = None

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        _check_one_end(self.expires_in_seconds, self.expires_at)
        if self.expires_in_seconds is None and self.expires_at is None:
            raise PydanticCustomError("no_end", "give expires_in_seconds or expires_at")
        return self


class Expiry(Command):
    """Release the holds of an account that have ended. Internal: a job puts it on lanes where nothing else happens.

    What has ended is released before any command of its account, so this does nothing by itself, leaves no row and
    uses up no key. The rows of the holds that end have keys of their own, ``expiry:<hold id>``.
    """

    kind: Literal["expiry"] = "expiry"
    idempotency_key: Text = Field(default_factory=lambda: f"expiry:{uuid4()}")
    callback_url: None = None
    #: How many holds are thought to have ended, which says how many rows it writes.
    holds: HoldCount = 1


#: The limits that an account can have.
LimitName = Literal["credit_limit", "max_balance", "low_balance"]


class SetLimit(Command):
    """Set a limit of an account, or take it away by leaving the amount out. A frozen account's can be set as well.

    `credit_limit`: how far below zero debits and holds may take the account; rejected as `credit_limit_in_use` if it is
    below what is used of it already. Taken away it is 0.
    `max_balance`: what no credit may take the balance above. It may be below the balance as it stands: nothing is taken
    away, and nothing more is let in. A reversal gives back what was taken, also above it.
    `low_balance`: falling below it is sent to webhooks as `balance.low`, again only after the balance was back.
    """

    kind: Literal["set_limit"] = "set_limit"
    limit: LimitName
    amount: AmountOrZero | None = None
