"""The bodies of what is sent to webhooks and callbacks, as the OpenAPI document shows them; workers make them.

Whether what is sent is as it says here, the tests of webhooks hold for whatever reaches their receiver.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ....schemas.accounts import AccountStatus
from ....schemas.commands import LimitName
from .holds import HOLD_EXAMPLE
from .ledger import (
    ACCOUNT_EXAMPLE,
    LEFT_OUT,
    TRANSACTION_EXAMPLE,
    AmountOrZeroText,
    AmountText,
    BalanceText,
    Moment,
    Side,
    is_absent,
)
from .webhooks import EVENT_EXAMPLE, WEBHOOK_EXAMPLE

#: As the receiver finds it, which is not as everything else is spelt.
EVENT_TYPE = Field(alias="eventType", description="What has happened.")
Sequence = Annotated[
    int,
    Field(
        description="How many decisions the account had by then: of two events of an account the higher is the later.",
        examples=[7],
    ),
]
OptionalSequence = Annotated[Sequence | None, Field(description="Null: nothing was decided.")]
AccountId = Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
CustomerId = Annotated[str, Field(examples=["cust_42"])]
KindText = Annotated[str, Field(description="What was asked for.", examples=["debit"])]
IdempotencyKey = Annotated[str, Field(description="The key under which it was sent.", examples=["job_77"])]


class MovementObject(BaseModel):
    """An entry on an account. Those of one transaction are sent one by one, with the same id."""

    id: Annotated[str, Field(description="Id of the transaction.", examples=[TRANSACTION_EXAMPLE])]
    customer_id: CustomerId
    account_id: AccountId
    bucket_name: Annotated[str, Field(description="The account's name.", examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    amount_minor_units: AmountText
    balance_after_minor_units: BalanceText
    reference: Annotated[str, Field(examples=["order_1001"])]
    occurred_at: Moment
    sequence: Sequence


class GrantObject(MovementObject):
    """Credits that were added to an account."""

    object: Literal["customer_credits_grant"]


class ConsumptionObject(MovementObject):
    """Credits that were taken from an account."""

    object: Literal["customer_credits_consumption"]
    shortfall_minor_units: Annotated[
        AmountOrZeroText | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="Of a debit with `allow_partial`: how much less than asked for it took.",
            examples=["30"],
        ),
    ] = None


class ReversalObject(MovementObject):
    """An entry that undid another one."""

    object: Literal["customer_credits_reversal"]
    side: Side
    reversal_of: Annotated[str, Field(description="The transaction it undoes.", examples=[TRANSACTION_EXAMPLE])]


class AccountObject(BaseModel):
    """An account as it was after its state changed."""

    id: AccountId
    object: Literal["customer_credits_account"]
    store_id: Annotated[str, Field(examples=["store_default"])]
    customer_id: CustomerId
    name: Annotated[str, Field(examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    status: AccountStatus
    balance: BalanceText
    created_at: Moment
    occurred_at: Moment
    sequence: Sequence


class LowBalanceObject(BaseModel):
    """A balance that an entry took from at or above the account's threshold to below it."""

    object: Literal["customer_credits_balance"]
    customer_id: CustomerId
    account_id: AccountId
    bucket_name: Annotated[str, Field(description="The account's name.", examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    balance_minor_units: BalanceText
    threshold_minor_units: BalanceText
    occurred_at: Moment
    sequence: Sequence


class HoldObject(BaseModel):
    """A hold, and what has become of it."""

    id: Annotated[str, Field(description="Id of the hold.", examples=[HOLD_EXAMPLE])]
    object: Literal["customer_credits_hold"]
    customer_id: CustomerId
    account_id: AccountId
    bucket_name: Annotated[str, Field(description="The account's name.", examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    held_after_minor_units: Annotated[
        BalanceText, Field(description="What all holds of the account set aside then.", examples=["250"])
    ]
    balance_after_minor_units: BalanceText
    reference: Annotated[str, Field(examples=["order_1001"])]
    occurred_at: Moment
    sequence: Sequence


class CreatedHoldObject(HoldObject):
    """A hold that was made."""

    amount_minor_units: AmountText
    expires_at: Moment


class CapturedHoldObject(HoldObject):
    """A hold of which a capture took something."""

    amount_minor_units: Annotated[AmountText, Field(description="What the capture took of the balance.")]
    remaining_minor_units: Annotated[BalanceText, Field(description="What the hold sets aside now.", examples=["0"])]
    transaction_id: Annotated[str, Field(examples=[TRANSACTION_EXAMPLE])]


class ReleasedHoldObject(HoldObject):
    """A hold that has ended without another capture."""

    amount_minor_units: Annotated[AmountText, Field(description="What was left of it, and is available again.")]


class ExtendedHoldObject(HoldObject):
    """A hold that ends at another moment."""

    expires_at: Moment


class LimitObject(BaseModel):
    """A limit of an account that was set or taken away."""

    object: Literal["customer_credits_limit"]
    customer_id: CustomerId
    account_id: AccountId
    bucket_name: Annotated[str, Field(description="The account's name.", examples=["Tokens"])]
    unit_label: Annotated[str, Field(examples=["tokens"])]
    limit: LimitName
    amount_minor_units: Annotated[AmountOrZeroText | None, Field(description="Null: the limit was taken away.")]
    balance_minor_units: BalanceText
    occurred_at: Moment
    sequence: Sequence


class CommandError(BaseModel):
    """Why a command was not applied. `code` is stable and for programs."""

    code: Annotated[str, Field(examples=["insufficient_balance"])]
    message: str
    details: Annotated[dict[str, Any], Field(examples=[{"needed": "600", "available": "40"}])]


class RejectedCommandObject(BaseModel):
    """A command that was decided against. Its idempotency key is used up."""

    object: Literal["command"]
    idempotency_key: IdempotencyKey
    kind: KindText
    account_id: AccountId
    customer_id: Annotated[str | None, Field(description="Null: there is no such account.", examples=["cust_42"])]
    reference: Annotated[str | None, Field(description="Null: the command has none.", examples=["job_77"])]
    amount_minor_units: Annotated[AmountText | None, Field(description="Null: the command has none.")]
    error: CommandError
    occurred_at: Moment
    sequence: Sequence


class CommandResultObject(BaseModel):
    """What became of a command that was sent with a `callback_url`."""

    object: Literal["command"]
    status: Literal["applied", "rejected", "dead_lettered"]
    account_id: AccountId
    idempotency_key: IdempotencyKey
    kind: Annotated[str | None, Field(description="What was asked for.", examples=["debit"])]
    transaction_id: Annotated[str | None, Field(description="Null: nothing has moved.", examples=[TRANSACTION_EXAMPLE])]
    side: Side | None
    amount: AmountText | None
    balance: Annotated[BalanceText | None, Field(description="Of the account, after the command.")]
    shortfall: Annotated[
        AmountOrZeroText | None,
        LEFT_OUT,
        Field(
            exclude_if=is_absent,
            description="Of a debit with `allow_partial`: how much less than asked for it took.",
            examples=["30"],
        ),
    ] = None
    reference: Annotated[str | None, Field(examples=["job_77"])]
    reversal_of: Annotated[str | None, Field(description="Of a reversal: the transaction it undoes.")]
    hold_id: Annotated[str | None, Field(description="The hold it made, or was about.", examples=[HOLD_EXAMPLE])]
    error: CommandError | None
    decided_at: Annotated[Moment | None, Field(description="Null: nothing was decided.")]


class TestObject(BaseModel):
    """Nothing has happened: a test was asked for."""

    object: Literal["webhook_test"]
    webhook_id: Annotated[str, Field(examples=[WEBHOOK_EXAMPLE])]
    store_id: Annotated[str, Field(examples=["store_default"])]


class EventEnvelope(BaseModel):
    """What every event has."""

    id: Annotated[str, Field(description="As in `webhook-id`: the same in every attempt.", examples=[EVENT_EXAMPLE])]
    created_at: Annotated[int, Field(description="Milliseconds since 1970 in UTC.", examples=[1772366400250])]


class CreditsGrantedEvent(EventEnvelope):
    """Credits were added: by a credit, an initial balance, or an entry of a transaction."""

    event_type: Annotated[Literal["credits.granted"], EVENT_TYPE]
    sequence: Sequence
    object: GrantObject


class CreditsConsumedEvent(EventEnvelope):
    """Credits were taken: by a debit, or an entry of a transaction."""

    event_type: Annotated[Literal["credits.consumed"], EVENT_TYPE]
    sequence: Sequence
    object: ConsumptionObject


class CreditsReversedEvent(EventEnvelope):
    """An entry undid another one; a reversal sends this event only."""

    event_type: Annotated[Literal["credits.reversed"], EVENT_TYPE]
    sequence: Sequence
    object: ReversalObject


class AccountEvent(EventEnvelope):
    """An account's state changed."""

    event_type: Annotated[
        Literal["account.created", "account.frozen", "account.unfrozen", "account.closed"], EVENT_TYPE
    ]
    sequence: Sequence
    object: AccountObject


class AccountLimitChangedEvent(EventEnvelope):
    """A limit of an account was set or taken away."""

    event_type: Annotated[Literal["account.limit_changed"], EVENT_TYPE]
    sequence: Sequence
    object: LimitObject


class BalanceLowEvent(EventEnvelope):
    """An entry took the balance from at or above the account's threshold to below it."""

    event_type: Annotated[Literal["balance.low"], EVENT_TYPE]
    sequence: Sequence
    object: LowBalanceObject


class HoldCreatedEvent(EventEnvelope):
    """A part of a balance was set aside."""

    event_type: Annotated[Literal["hold.created"], EVENT_TYPE]
    sequence: Sequence
    object: CreatedHoldObject


class HoldCapturedEvent(EventEnvelope):
    """A capture took what a hold had set aside, or a part of it; `credits.consumed` is sent as well."""

    event_type: Annotated[Literal["hold.captured"], EVENT_TYPE]
    sequence: Sequence
    object: CapturedHoldObject


class HoldReleasedEvent(EventEnvelope):
    """A hold has ended by being voided, or by itself."""

    event_type: Annotated[Literal["hold.voided", "hold.expired"], EVENT_TYPE]
    sequence: Sequence
    object: ReleasedHoldObject


class HoldExtendedEvent(EventEnvelope):
    """The end of a hold was moved."""

    event_type: Annotated[Literal["hold.extended"], EVENT_TYPE]
    sequence: Sequence
    object: ExtendedHoldObject


class CommandRejectedEvent(EventEnvelope):
    """A command was decided against; its idempotency key is used up."""

    event_type: Annotated[Literal["command.rejected"], EVENT_TYPE]
    sequence: Sequence
    object: RejectedCommandObject


class WebhookTestEvent(EventEnvelope):
    """A test was asked for."""

    event_type: Annotated[Literal["webhook.test"], EVENT_TYPE]
    sequence: OptionalSequence
    object: TestObject


class CommandResultEvent(EventEnvelope):
    """A command that was sent with a `callback_url` has a result."""

    event_type: Annotated[Literal["command.applied", "command.rejected", "command.dead_lettered"], EVENT_TYPE]
    sequence: OptionalSequence
    object: CommandResultObject
