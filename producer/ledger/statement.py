"""What is run on Postgres, as a value: texts of SQL, with which values, and how to read the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

_T = TypeVar("_T")

Rows = list[tuple[Any, ...]]


class Statement(NamedTuple, Generic[_T]):
    """One statement or several that are one transaction, and what their outcome means."""

    texts: Sequence[str]
    values: Mapping[str, Any]
    #: Makes the outcome of the last statement's rows, or raises what they say.
    outcome: Callable[[Rows], _T]
