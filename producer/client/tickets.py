"""The tickets of a bulk, packed: a million of them fit in some sixty megabytes beside their keys' own length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol, overload

from ...schemas.identifiers import ACCOUNT_PREFIX
from ...schemas.tickets import Ticket
from .chunks import Chunk

_ACCOUNT_BYTES = 16
_FINGERPRINT_BYTES = 8
_SEPARATOR = "\0"


class Accepted(Protocol):
    """A chunk that stands on its lanes."""

    @property
    def chunk(self) -> Chunk: ...
    @property
    def first_number(self) -> int: ...
    @property
    def entries(self) -> Sequence[bytes]:
        """The id of each command's lane entry."""


class _Page:
    """The tickets of one chunk, in columns. No key holds NUL, so it can stand between them."""

    __slots__ = ("accounts", "count", "dry_runs", "entries", "fingerprints", "first_number", "keys")

    def __init__(self, accepted: Accepted) -> None:
        chunk = accepted.chunk
        self.count = len(chunk)
        self.first_number = accepted.first_number
        self.keys = _SEPARATOR.join(chunk.keys).encode()
        self.entries = b"\0".join(accepted.entries)
        self.accounts = bytes.fromhex("".join(chunk.accounts).replace(ACCOUNT_PREFIX, ""))
        self.fingerprints = bytes.fromhex("".join(chunk.fingerprints))
        self.dry_runs = frozenset(chunk.dry_runs)

    def unpack(self, store_id: str, producer_id: str, *, kept: bool) -> list[Ticket]:
        keys = self.keys.decode().split(_SEPARATOR)
        entries = self.entries.decode().split(_SEPARATOR)
        return [
            Ticket(
                store_id,
                ACCOUNT_PREFIX + self.accounts[position * _ACCOUNT_BYTES : (position + 1) * _ACCOUNT_BYTES].hex(),
                keys[position],
                entries[position],
                self.fingerprints[position * _FINGERPRINT_BYTES : (position + 1) * _FINGERPRINT_BYTES].hex(),
                kept,
                producer_id,
                self.first_number + position,
                position in self.dry_runs,
            )
            for position in range(self.count)
        ]


class Tickets(Sequence[Ticket]):
    """The tickets of the commands of one bulk, in the order in which the commands were given."""

    def __init__(self, store_id: str, producer_id: str, *, kept: bool) -> None:
        self.store_id = store_id
        self.producer_id = producer_id
        self.kept = kept
        self._pages: list[_Page] = []
        #: Position of each page's first ticket.
        self._starts: list[int] = []
        #: Number of each page's first ticket; numbers only grow, but other calls may have taken some in between.
        self._first_numbers: list[int] = []
        self._count = 0
        self._unpacked: tuple[int, list[Ticket]] = (-1, [])

    def append(self, accepted: Accepted) -> None:
        """Add the tickets of an accepted chunk."""
        self._starts.append(self._count)
        self._first_numbers.append(accepted.first_number)
        self._pages.append(_Page(accepted))
        self._count += len(accepted.chunk)

    @property
    def number_span(self) -> tuple[int, int]:
        """The numbers of the first and of the last ticket, (0, 0) if there are none."""
        if not self._pages:
            return 0, 0
        return self._first_numbers[0], self._first_numbers[-1] + self._pages[-1].count - 1

    def position_of(self, number: int) -> int | None:
        """Return the position of the ticket of this number, or None."""
        index = bisect_right(self._first_numbers, number) - 1
        if index < 0 or number >= self._first_numbers[index] + self._pages[index].count:
            return None
        return self._starts[index] + number - self._first_numbers[index]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Ticket]:
        for page in self._pages:
            yield from page.unpack(self.store_id, self.producer_id, kept=self.kept)

    @overload
    def __getitem__(self, index: int) -> Ticket: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ticket]: ...
    def __getitem__(self, index: int | slice) -> Ticket | list[Ticket]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError("there is no ticket at this position")
        page = bisect_right(self._starts, position) - 1
        return self._page(page)[position - self._starts[page]]

    def __repr__(self) -> str:
        return f"<{self._count} tickets of {self.store_id}>"

    def _page(self, index: int) -> list[Ticket]:
        # Neighbours are asked for one after the other; one page is kept unpacked for them.
        cached, tickets = self._unpacked
        if cached != index:
            tickets = self._pages[index].unpack(self.store_id, self.producer_id, kept=self.kept)
            self._unpacked = (index, tickets)
        return tickets
