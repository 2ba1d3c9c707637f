"""An operation on Postgres as a value: what to run, with which values, and how to read the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

_T = TypeVar("_T")

Rows = list[tuple[Any, ...]]


class Operation(NamedTuple, Generic[_T]):
    """Statements that are one transaction, and what their outcome means."""

    statements: Sequence[str]
    values: Mapping[str, Any]
    #: Makes the outcome of the last statement's rows, or raises what they tell.
    outcome: Callable[[Rows], _T]
