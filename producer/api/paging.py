"""Pages of a list, newest first: bounded by cursors, which are ids of its items. Knows no table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Generic, NamedTuple, TypeVar

from fastapi import Depends, Query
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from .errors import Problem

MAX_PAGE_ITEMS = 100
DEFAULT_PAGE_ITEMS = 10

_ItemT = TypeVar("_ItemT")


def _in_digits(value: object) -> object:
    """Let pass what is written in digits alone: what else Python takes for a whole number, as 1_0, others do not."""
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdigit()):
        raise PydanticCustomError("whole_number", "must be a whole number in digits")
    return value


#: Goes after the `Query` of a whole number, so that the document shows its bounds.
IN_DIGITS = BeforeValidator(_in_digits)


class Page(NamedTuple, Generic[_ItemT]):
    """Some items, newest first, and whether there are more beyond them."""

    data: list[_ItemT]
    has_more: bool


class Window(NamedTuple):
    """Which items are asked for."""

    limit: int
    starting_after: str | None
    ending_before: str | None

    @property
    def is_upwards(self) -> bool:
        """Whether the page lies next to its newer bound's far side: it is read from the cursor towards the newest."""
        return self.ending_before is not None and self.starting_after is None

    @property
    def fetch(self) -> int:
        """How many items to read: one more than wanted shows whether there are more."""
        return self.limit + 1

    def cursors(self) -> Iterator[tuple[str, str]]:
        """Yield the given cursors, by the names of their parameters."""
        for name in ("starting_after", "ending_before"):
            cursor: str | None = getattr(self, name)
            if cursor is not None:
                yield name, cursor

    def unknown(self, name: str) -> Problem:
        """Return the problem for a cursor that is no item of this list."""
        return Problem("validation_error", f"{name}: must be the id of an item of this list", param=name)

    def page(self, items: Sequence[_ItemT]) -> Page[_ItemT]:
        """Return the page made of the items that were read, in the order in which they were read."""
        data = list(items[: self.limit])
        return Page(data[::-1] if self.is_upwards else data, len(items) > self.limit)


# Asynchronous, or it would take a thread of a pool for every request.
async def _window(
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_ITEMS, description="Most items of the page.", examples=[25]), IN_DIGITS
    ] = DEFAULT_PAGE_ITEMS,
    starting_after: Annotated[
        str | None, Query(description="Id of an item: the page goes on from it, towards older ones.")
    ] = None,
    ending_before: Annotated[
        str | None,
        Query(
            description="Id of an item: the page ends right before it, with newer ones. With `starting_after`, the "
            "page goes on from there and stops before this one."
        ),
    ] = None,
) -> Window:
    return Window(limit, starting_after, ending_before)


#: The parameters of every list.
WindowParameters = Annotated[Window, Depends(_window)]
