"""The commands a producer can put on a lane: frozen, validated when made, encoded once.

Each names its store, its account and its idempotency key. `store_id` may be left out where a client sends the command:
the client's own store is filled in. Nothing here knows what a command does; that is the ledger's business.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from .account_names import name_key, seen_pattern
from .amounts import Amount, AmountOrZero
from .identifiers import ACCOUNT_ID_PATTERN, STORE_ID_PATTERN, TRANSACTION_ID_PATTERN
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

#: Postgres text cannot hold NUL.
WITHOUT_NUL = r"^[^\x00]+$"
WITHOUT_NUL_OR_EMPTY = r"^[^\x00]*$"


def _caller_key(key: str) -> str:
    if key.startswith(REVERSAL_KEY_PREFIX):
        raise PydanticCustomError("reserved_key", "must not start with 'reversal:', which belongs to reversals")
    return key


def _visible_name(name: str) -> str:
    if not name_key(name):
        raise PydanticCustomError("blank_name", "must contain more than white space and what nobody sees")
    return name


def reversal_key(attempt_key: str) -> str:
    """Return the key that the reversal has if the attempt of this key makes it."""
    return ":".join(attempt_key.split(":", 2)[:2])


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, pattern=WITHOUT_NUL)]
#: What a schema shows of the two rules that follow after it: a reserved prefix, and something to see.
_NO_REVERSAL = {"not": {"pattern": f"^{REVERSAL_KEY_PREFIX}"}}
_VISIBLE = {"pattern": seen_pattern()}

Key = Annotated[Text, Field(json_schema_extra=_NO_REVERSAL), AfterValidator(_caller_key)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=WITHOUT_NUL, json_schema_extra=_VISIBLE),
    AfterValidator(_visible_name),
]
AccountId = Annotated[str, Field(pattern=ACCOUNT_ID_PATTERN)]
TransactionId = Annotated[str, Field(pattern=TRANSACTION_ID_PATTERN)]
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
    """Undo a whole transaction by a new, opposite one, on every account that it touched.

    `account_id` is the account of the transaction's first entry, in whose lane it was decided. Its own key is
    ``reversal:<transaction id>:<attempt>``, made when it is left out. The reversal that is made has the key
    ``reversal:<transaction id>``: reversing twice gives the first reversal, and a refused attempt, of a frozen account
    perhaps, can be followed by another.
    """

    kind: Literal["reverse"] = "reverse"
    transaction_id: TransactionId
    idempotency_key: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _fix_key(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("transaction_id"), str):
            return data
        key = f"{REVERSAL_KEY_PREFIX}{data['transaction_id']}:"
        attempt = data.get("idempotency_key", f"{key}{uuid4().hex}")
        if not isinstance(attempt, str) or not attempt.startswith(key):
            raise PydanticCustomError("reversal_key", f"idempotency_key of a reversal begins with {key}; leave it out")
        return {**data, "idempotency_key": attempt}


class Freeze(Command):
    """Stop all movement on an active account until it is unfrozen."""

    kind: Literal["freeze"] = "freeze"


class Unfreeze(Command):
    """Let a frozen account move again."""

    kind: Literal["unfreeze"] = "unfreeze"


class Close(Command):
    """Close an account for good. It stays readable, and its name is free again.

    Rejected as `account_overdrawn` while the balance is below zero.
    """

    kind: Literal["close"] = "close"
