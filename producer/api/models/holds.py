"""The bodies of requests and responses about holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from ....schemas.commands import DEFAULT_HOLD_SECONDS, MAX_HOLD_SECONDS, MAX_OPEN_HOLDS, Text
from ....schemas.holds import HoldStatusName
from ....schemas.time import parse_moment
from .ledger import (
    ACCOUNT_EXAMPLE,
    AmountOrZeroText,
    AmountText,
    AttachedMetadata,
    BodyKey,
    CallbackUrl,
    DryRun,
    IsDryRun,
    Moment,
    Reference,
    RequestBody,
    not_null,
    show_key_as_required,
    show_without_null,
)

HOLD_EXAMPLE = "cch_8f14e45fceea167a5a36dedd4bea25433"
_DEFAULT_DAYS, _MAX_DAYS = DEFAULT_HOLD_SECONDS // 86_400, MAX_HOLD_SECONDS // 86_400


def _moment_in_text(value: object) -> datetime | None:
    """Return the moment that the text names; what is left out may as well be null."""
    if value is None:
        return None
    try:
        return parse_moment(value)  # type: ignore[arg-type]  # what is no text is none of a moment
    except (TypeError, ValueError):
        raise PydanticCustomError("moment", "must be a moment in ISO 8601, like 2026-03-01T12:30:00Z") from None


def _whole(value: object) -> object:
    """Return the number as an integer if it is a whole one, however it is written: to JSON, 60.0 is 60."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ExpiresInSeconds = Annotated[
    Annotated[StrictInt, Field(ge=1, le=MAX_HOLD_SECONDS)] | None,
    BeforeValidator(_whole),
    Field(
        description=f"How long it lasts from when it is decided, {_MAX_DAYS} days at most. Or `expires_at`.",
        examples=[900],
    ),
]
ExpiresAt = Annotated[
    datetime | None,
    BeforeValidator(_moment_in_text),
    Field(
        description="When what is left of it is released by itself: after it is decided, and "
        f"{_MAX_DAYS} days after that at most. Or `expires_in_seconds`.",
        examples=["2026-03-01T12:45:00Z"],
    ),
]


#: What a body says that has two ends, and one that has none.
_TWO_ENDS = {
    "required": ["expires_in_seconds", "expires_at"],
    "properties": {"expires_in_seconds": {"type": "integer"}, "expires_at": {"type": "string"}},
}
_NO_END = {"properties": {"expires_in_seconds": {"type": "null"}, "expires_at": {"type": "null"}}}


def _show_key_and_one_end(schema: dict[str, Any]) -> None:
    show_key_as_required(schema)
    schema["not"] = _TWO_ENDS


def _show_an_end(schema: dict[str, Any]) -> None:
    # As what is not: of alternatives, tools that make clients make a type each.
    schema["not"] = {"anyOf": [_TWO_ENDS, _NO_END]}


class _WithEnd(RequestBody):
    """A body that may say when a hold ends, in one of two ways."""

    expires_in_seconds: ExpiresInSeconds = None
    expires_at: ExpiresAt = None

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        # The command says so as well; here it is said before anything is looked for.
        if self.expires_in_seconds is not None and self.expires_at is not None:
            raise PydanticCustomError("two_ends", "give expires_in_seconds or expires_at, and not both")
        return self


class PlaceHold(_WithEnd):
    """Sets a part of the balance aside."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, json_schema_extra=_show_key_and_one_end
    )

    amount: AmountText
    reference: Reference
    idempotency_key: BodyKey = None
    metadata: AttachedMetadata = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


def _show_capture(schema: dict[str, Any]) -> None:
    """Show the key as required, and an amount that is no amount, perhaps the outcome of a sum, as what is refused."""
    show_key_as_required(schema)
    show_without_null(schema, "amount")


class CaptureHold(RequestBody):
    """Debits what a hold has set aside."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, json_schema_extra=_show_capture)

    amount: Annotated[
        AmountText | None, BeforeValidator(not_null), Field(description="Left out: all that is left of the hold.")
    ] = None
    final: Annotated[StrictBool, Field(description="It is the last one: what it leaves of the hold is released.")] = (
        True
    )
    allow_overage: Annotated[
        StrictBool,
        Field(description="It may be above what is left of the hold, if the rest is available on the account."),
    ] = False
    reference: Annotated[Text | None, Field(description="Left out: the hold's.", examples=["order_1001"])] = None
    idempotency_key: BodyKey = None
    metadata: AttachedMetadata = None
    callback_url: CallbackUrl = None
    dry_run: DryRun = False


class ExtendHold(_WithEnd):
    """Moves the end of a hold, to later or to earlier, counted from when this is decided."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, json_schema_extra=_show_an_end)

    idempotency_key: BodyKey = None
    dry_run: DryRun = False

    @model_validator(mode="after")
    def _check_some_end(self) -> Self:
        if self.expires_in_seconds is None and self.expires_at is None:
            raise PydanticCustomError("no_end", "give expires_in_seconds or expires_at")
        return self


class HoldBody(BaseModel):
    """A part of an account's balance that is set aside, or was. One whose end has passed is `expired`."""

    id: Annotated[str, Field(examples=[HOLD_EXAMPLE])]
    account_id: Annotated[str, Field(examples=[ACCOUNT_EXAMPLE])]
    status: Annotated[HoldStatusName, Field(description="Only an `open` one sets anything aside, and can change.")]
    amount: AmountText
    captured: Annotated[
        AmountOrZeroText, Field(description="What its captures took; above `amount` with overage only.", examples=["0"])
    ]
    remaining: Annotated[AmountOrZeroText, Field(description="What it sets aside now.", examples=["250"])]
    reference: Annotated[str, Field(examples=["order_1001"])]
    metadata: dict[str, str] | None
    expires_at: Annotated[Moment, Field(description="When what is left of it is released by itself.")]
    created_at: Moment
    ended_at: Annotated[Moment | None, Field(description="When it was used up, voided or expired. Null: it is open.")]
    dry_run: IsDryRun = None


class HoldList(BaseModel):
    """A page of holds, newest first."""

    object: Literal["list"] = "list"
    data: list[HoldBody]
    has_more: Annotated[bool, Field(description="Whether there are more beyond this page, in its direction.")]


#: Said of the limit of open holds, where the operation that meets it is described.
OPEN_HOLDS_LIMIT = f"An account may have {MAX_OPEN_HOLDS:,} open holds."
DEFAULT_END = f"Without an end it lasts {_DEFAULT_DAYS} days."
