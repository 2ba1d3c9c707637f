"""Amounts: positive whole numbers of up to `MAX_AMOUNT_DIGITS` digits, never a float."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

#: The longest amount, in decimal digits. Postgres NUMERIC holds 131,072, so sums have room.
MAX_AMOUNT_DIGITS = 1_000

_TOO_LARGE = 10**MAX_AMOUNT_DIGITS
_RULE = "must be a whole number from {}, as an int or a string of digits {}, at most {} digits"
_FROM_ONE = _RULE.format(1, "[1-9][0-9]*", MAX_AMOUNT_DIGITS)
_FROM_ZERO = _RULE.format(0, "0|[1-9][0-9]*", MAX_AMOUNT_DIGITS)


def parse_amount(value: object) -> int:
    """Return the amount that an int or a digit string stands for.

    Raises:
        PydanticCustomError: the value is a float, a bool, zero, negative, not plain ASCII digits, or too long.
    """
    return _parsed(value, _FROM_ONE)


def parse_amount_or_zero(value: object) -> int:
    """Return the amount as `parse_amount` does, but let ``0`` and ``"0"`` through."""
    if (type(value) is int and value == 0) or (type(value) is str and value == "0"):
        return 0
    return _parsed(value, _FROM_ZERO)


def _parsed(value: object, rule: str) -> int:
    if type(value) is str:
        if value.isascii() and value.isdigit() and value[0] != "0" and len(value) <= MAX_AMOUNT_DIGITS:
            return int(value)
    elif type(value) is int and 0 < value < _TOO_LARGE:
        return value
    raise PydanticCustomError("amount", rule)


#: An amount that moves: at least 1.
Amount = Annotated[int, BeforeValidator(parse_amount), Field(strict=True)]
#: An amount that may be zero, as an initial balance or a limit.
AmountOrZero = Annotated[int, BeforeValidator(parse_amount_or_zero), Field(strict=True)]
