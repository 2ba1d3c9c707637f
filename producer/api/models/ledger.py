"""The bodies of requests and responses. Amounts are digit strings everywhere: no JSON number can hold them all."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, StrictStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from ....schemas.accounts import AccountStatus
from ....schemas.amounts import MAX_AMOUNT_DIGITS
from ....schemas.commands import MAX_ENTRIES, Key, Metadata, Name, Text
from ....schemas.urls import TargetUrl

AMOUNT_PATTERN = r"^[1-9][0-9]*$"
AMOUNT_OR_ZERO_PATTERN = r"^(0|[1-9][0-9]*)$"
ACCOUNT_EXAMPLE = "cca_8f14e45fceea167a5a36dedd4bea2543"
TRANSACTION_EXAMPLE = "cct_8f14e45fceea167a5a36dedd4bea25432"
ENTRY_EXAMPLE = "cce_8f14e45fceea167a5a36dedd4bea25432"
COMMAND_EXAMPLE = "cmd_WyJzdG9yZV9kZWZhdWx0IiwiY2NhX…"
#: Stands for the id of what a dry run would have made.
DRY_RUN_ID = "dry_run"
MOMENT_EXAMPLE = "2026-03-01T12:30:00.250Z"


def is_absent(value: object) -> bool:
    """Whether there is nothing to show, so that a field is better left out than null."""
    return value is None


def without_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return a schema that allows one thing or null as the one that allows that thing only; any other as it is."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return {**choices[0], **{name: rule for name, rule in schema.items() if name != "anyOf"}}


def show_without_null(schema: dict[str, Any], *names: str) -> None:
    """Show fields of a body, which are null where they are left out, as what they are where they are there."""
    for name in names:
        field = without_null(schema["properties"][name])
        del field["default"]
        schema["properties"][name] = field


class _LeftOut:
    """Marks a field of a response that is left out where there is nothing to show: its schema must not allow null."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return without_null(handler(schema))


#: Goes with `exclude_if=is_absent`: clients are made from the document, and take for null only what it says may be.
LEFT_OUT = _LeftOut()


def _trimmed(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


AmountText = Annotated[
    StrictStr,
    Field(
        pattern=AMOUNT_PATTERN,
        max_length=MAX_AMOUNT_DIGITS,
        description=f"A whole number from 1, as a string of at most {MAX_AMOUNT_DIGITS} decimal digits.",
        examples=["250"],
    ),
]
AmountOrZeroText = Annotated[
    StrictStr,
    Field(
        pattern=AMOUNT_OR_ZERO_PATTERN,
        max_length=MAX_AMOUNT_DIGITS,
        description=f"A whole number from 0, as a string of at most {MAX_AMOUNT_DIGITS} decimal digits.",
        examples=["1000"],
    ),
]
Side = Literal["debit", "credit"]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=[MOMENT_EXAMPLE])]
BalanceText = Annotated[
    str,
    Field(
        pattern=r"^-?[0-9]+$",
        description="A whole number as a string of digits; below zero only within an overdraft limit.",
        examples=["750"],
    ),
]
#: The header may stand for it, so the model does not require it; `Writes.key` says so when neither is there.
BodyKey = Annotated[
    Key | None,
    Field(
        description="Makes the request safe to repeat: for ever, the same key and the same request have one effect and "
        "one answer. Must not start with `reversal:` or `expiry:cch_`. The header `Idempotency-Key` may be sent "
        "instead, or must agree.",
        examples=["order_1001"],
    ),
]
Reference = Annotated[
    Text, Field(description="Your own id of what caused the movement; found again by it.", examples=["order_1001"])
]
AttachedMetadata = Annotated[
    Metadata | None, Field(description="Up to 50 pairs of text, given back as sent.", examples=[{"plan": "pro"}])
]
CallbackUrl = Annotated[
    TargetUrl | None,
    Field(
        description="Where the result is sent as a signed webhook, once there is one. Not part of what makes two "
        "requests the same: a repetition may name another URL, and the result is sent to both.",
        examples=["https://example.com/credits"],
    ),
]


DRY_RUN_TEXT = (
    "Decide it in its turn and leave nothing: no row, no key, no event, no callback. The answer has the status and the "
    "body that the request itself would have been answered with, and `dry_run`; what does not exist has the id "
    f"`{DRY_RUN_ID}`. A key that was used before answers as it does to the request itself."
)
DryRun = Annotated[bool, Field(description=DRY_RUN_TEXT, examples=[False])]
#: Of an answer.
IsDryRun = Annotated[
    Literal[True] | None,
    LEFT_OUT,
    Field(
        exclude_if=is_absent,
        description=f"It is what would have happened, and nothing has. What does not exist has the id `{DRY_RUN_ID}`.",
        examples=[True],
    ),
]


class RequestBody(BaseModel):
    """What every body of a request is: known fields only, each of its own type."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


def show_key_as_required(schema: dict[str, Any]) -> None:
    """Show the key as required, which it is for whoever sends no header; a schema cannot say "here or there"."""
    schema.setdefault("required", []).append("idempotency_key")
    show_without_null(schema, "idempotency_key")


class CreateAccount(RequestBody):
    """Opens an account for a customer."""

    customer_id: Annotated[Text, Field(description="Your own id of the customer.", examples=["cust_42"])]
    name: Annotated[
        Name,
        BeforeValidator(_trimmed),
        Field(
            description="Unique among the customer's open accounts, compared trimmed, whatever the case, and without "
            "characters that nobody sees.",
            examples=["Tokens"],
        ),
    ] = "default"
    unit_label: Annotated[Text, Field(description="What is counted; only shown.", examples=["tokens"])] = "credits"
    initial_balance: AmountOrZeroText | None = None
    idempotency_key: BodyKey = None
    metadata: AttachedMetadata = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


class Movement(RequestBody):
    """Credits or debits an account."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, json_schema_extra=show_key_as_required)

    amount: AmountText
    reference: Reference
    idempotency_key: BodyKey = None
    metadata: AttachedMetadata = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


class DebitMovement(Movement):
    """Debits an account."""

    allow_partial: Annotated[
        bool,
        Field(
            description="Take what is available where that is less than `amount`; `shortfall` of the answer says what "
            "is missing. 422 `insufficient_balance` only where nothing is available.",
            examples=[False],
        ),
    ] = False


class ChangeAccount(RequestBody):
    """Changes the state of an account."""

    account_id: Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
    idempotency_key: BodyKey = None
    dry_run: DryRun = False


class SetLimitBody(RequestBody):
    """Sets a limit of an account, or takes it away."""

    amount: Annotated[
        AmountOrZeroText | None, Field(description="What the limit is to be; null takes it away. It must be there.")
    ]
    idempotency_key: BodyKey = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


class AccountSettings(RequestBody):
    """Changes what is watched about an account."""

    low_balance: Annotated[
        AmountOrZeroText | None,
        Field(description="Falling below this balance is sent to webhooks as `balance.low`; null: never."),
    ]


def not_null(value: Any) -> Any:
    """Refuse null where it would be taken for what is left out."""
    if value is None:
        raise PydanticCustomError("null", "must not be null; leave it out")
    return value


def _show_amount_with_key(schema: dict[str, Any]) -> None:
    """Show that an amount needs a key, as it does for whoever sends no header, and that the key is of an amount."""
    schema["dependentRequired"] = {"amount": ["idempotency_key"], "idempotency_key": ["amount"]}
    show_without_null(schema, "amount", "idempotency_key")


class ReversalRequest(RequestBody):
    """Undoes a transaction: with an amount so much of it, else all that is left."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=_show_amount_with_key
    )

    amount: Annotated[
        AmountText | None,
        BeforeValidator(not_null),
        Field(
            description="How much of it is undone: only of a transaction of one entry, and several times until nothing "
            "is left, each under an idempotency key of its own. Left out: all that is left, once, without a key."
        ),
    ] = None
    idempotency_key: Annotated[
        BodyKey,
        BeforeValidator(not_null),
        Field(
            description="Of a reversal with an amount, which it makes safe to repeat: for ever, the same key and the "
            "same request have one effect and one answer. Two transactions may have the same. It is shown as "
            "`reversal:<transaction id>:<key>`. The header `Idempotency-Key` may be sent instead, or must agree.",
            examples=["goodwill_7"],
        ),
    ] = None
    dry_run: DryRun = False


class ReverseTransaction(ReversalRequest):
    """Undoes a transaction of the account: with an amount so much of it, else all that is left."""

    transaction_id: Annotated[str, Field(examples=[TRANSACTION_EXAMPLE])]


class EntryInput(RequestBody):
    """One side of a transaction."""

    account_id: Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
    side: Side
    amount: AmountText


class PostTransaction(RequestBody):
    """Moves amounts between accounts, all or nothing. Debits must equal credits; entries apply in the order given."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, json_schema_extra=show_key_as_required)

    reference: Reference
    idempotency_key: BodyKey = None
    entries: Annotated[list[EntryInput], Field(min_length=2, max_length=MAX_ENTRIES)]
    metadata: AttachedMetadata = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


class AccountBody(BaseModel):
    """An account and what is on it."""

    id: Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
    store_id: Annotated[str, Field(examples=["store_default"])]
    customer_id: Annotated[str, Field(examples=["cust_42"])]
    name: Annotated[str, Field(examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    status: AccountStatus
    balance: BalanceText
    held: Annotated[BalanceText, Field(description="The part of the balance that is set aside.", examples=["0"])]
    available: Annotated[BalanceText, Field(description="What a debit may take now.")]
    metadata: dict[str, str] | None
    created_at: Moment
    updated_at: Moment
    low_balance: Annotated[
        BalanceText | None,
        LEFT_OUT,
        Field(
            # Never null: clients may take it for a text.
            exclude_if=is_absent,
            description="Falling below it is sent to webhooks as `balance.low`; not there: never.",
            examples=["100"],
        ),
    ] = None
    credit_limit: Annotated[
        AmountOrZeroText, Field(description="How far below zero debits may take the account.", examples=["0"])
    ] = "0"
    max_balance: Annotated[
        AmountOrZeroText | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="What no credit may take the balance above; not there: it may be anything.",
            examples=["5000"],
        ),
    ] = None
    dry_run: IsDryRun = None


class BalanceBody(BaseModel):
    """A balance: the current one with `updated_at`, or one in time with `as_of`."""

    balance: BalanceText
    updated_at: Annotated[
        Moment | None,
        LEFT_OUT,
        Field(exclude_if=is_absent, description="Of the current balance: the latest entry's moment."),
    ] = None
    as_of: Annotated[
        Moment | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="With `at`: the moment of which the balance is, which may be earlier than the one asked for.",
        ),
    ] = None


class EntryBody(BaseModel):
    """One movement on an account."""

    id: Annotated[str, Field(examples=[ENTRY_EXAMPLE])]
    transaction_id: Annotated[str, Field(examples=[TRANSACTION_EXAMPLE])]
    account_id: Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
    side: Side
    amount: AmountText
    balance_after: Annotated[BalanceText, Field(description="The account's balance after this entry.")]
    reference: Annotated[str, Field(examples=["order_1001"])]
    created_at: Moment


class TransactionBody(BaseModel):
    """What moved together, for one reason: one entry, or several that balance."""

    id: Annotated[str, Field(examples=[TRANSACTION_EXAMPLE])]
    store_id: Annotated[str, Field(examples=["store_default"])]
    reference: Annotated[str, Field(examples=["order_1001"])]
    idempotency_key: Annotated[str, Field(examples=["order_1001"])]
    reversal_of: Annotated[str | None, Field(description="Of a reversal: the transaction it undoes.")]
    entries: list[EntryBody]
    metadata: dict[str, str] | None
    created_at: Moment
    shortfall: Annotated[
        AmountOrZeroText | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="Of a debit with `allow_partial`: how much less than asked for it took; `0`: it took all.",
            examples=["30"],
        ),
    ] = None
    dry_run: IsDryRun = None


class AccountList(BaseModel):
    """A page of accounts, newest first."""

    object: Literal["list"] = "list"
    data: list[AccountBody]
    has_more: Annotated[bool, Field(description="Whether there are more beyond this page, in its direction.")]


class EntryList(BaseModel):
    """A page of entries, newest first."""

    object: Literal["list"] = "list"
    data: list[EntryBody]
    has_more: Annotated[bool, Field(description="Whether there are more beyond this page, in its direction.")]


class TransactionList(BaseModel):
    """A page of transactions, newest first."""

    object: Literal["list"] = "list"
    data: list[TransactionBody]
    has_more: Annotated[bool, Field(description="Whether there are more beyond this page, in its direction.")]


class QueuedCommand(BaseModel):
    """A command that is durably accepted and not waited for. Nothing is lost; ask at `Location`."""

    object: Literal["command"] = "command"
    id: Annotated[str, Field(examples=[COMMAND_EXAMPLE])]
    status: Literal["queued"] = "queued"


class ErrorDetailBody(BaseModel):
    """What went wrong. `code` is stable and for programs; `message` says what to do next."""

    type: Literal["invalid_request_error", "authentication_error", "rate_limit_error", "api_error"]
    code: str
    message: str
    param: Annotated[str | None, Field(description="The field that it is about.")]


class RequestErrorDetail(ErrorDetailBody):
    """What went wrong, and the id under which the server's log knows the request."""

    request_id: Annotated[str, Field(examples=["req_6d1f0d3f9a3c4c0f8f6c3a0f5b1d2e3f"])]
    command_id: Annotated[
        str | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="With `timeout`, where the command is accepted: its id, to ask for its result.",
            examples=[COMMAND_EXAMPLE],
        ),
    ] = None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: RequestErrorDetail
    message: list[str]
    status: int
    trace_id: Annotated[str, Field(description="The request id as a UUID.")]
    timestamp: Annotated[int, Field(description="Milliseconds since 1970 in UTC.", examples=[1706889600000])]
