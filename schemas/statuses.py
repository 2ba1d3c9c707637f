"""The statuses that the tables store as numbers, and the kinds of endpoints and proofs. The numbers never change.

Statements take them as parameters or as the text that is made here, once, when a module is imported: an index that is
partial on a status is only used where the number stands in the statement. The kinds of command are in `kinds`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Status(IntEnum):
    """Of an account, in `accounts`."""

    ACTIVE = 1
    FROZEN = 2
    CLOSED = 3


class HoldStatus(IntEnum):
    """Of a hold, in `holds`. Only an open one ever changes."""

    OPEN = 1
    #: Used up by captures, or the rest released with the last of them.
    CAPTURED = 2
    VOIDED = 3
    EXPIRED = 4


class StoredEndpointKind(IntEnum):
    """What a row of `webhook_endpoints` is."""

    ENDPOINT = 1
    #: The callbacks of one store to one origin.
    CALLBACKS = 2


class StoredEndpointStatus(IntEnum):
    """Of a row of `webhook_endpoints`. Callers see no deleted one."""

    ENABLED = 1
    DISABLED = 2
    DELETED = 3


class StoredDeliveryStatus(IntEnum):
    """Of an event on its way to an endpoint, in `deliveries`."""

    PENDING = 1
    DELIVERED = 2
    FAILED = 3


class StoredRunStatus(IntEnum):
    """Of a run of a job, in `job_runs`."""

    DUE = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4


class StoredProofKind(IntEnum):
    """What a row of `reconciliations` has proven: the rows that were new, or the whole ledger."""

    RECENT = 1
    WHOLE = 2


def listed(numbers: Iterable[IntEnum]) -> str:
    """Return the numbers as SQL lists them after `in`."""
    return f"({', '.join(str(int(number)) for number in sorted(numbers))})"


def span(numbers: type[IntEnum]) -> str:
    """Return what SQL says after a column that holds any number of the enumeration.

    Raises:
        ValueError: there are gaps between the numbers.
    """
    first, last = int(min(numbers)), int(max(numbers))
    if last - first + 1 != len(numbers):
        raise ValueError(f"the numbers of {numbers.__name__} have gaps; list them")
    return f"between {first} and {last}"


def legend(numbers: type[IntEnum]) -> str:
    """Return what a column's comment says of its numbers: each with its member's name in lower case."""
    return ", ".join(f"{int(number)} {number.name.lower()}" for number in numbers)


def word(column: str, numbers: type[IntEnum]) -> str:
    """Return the SQL that spells a column's number as callers read it: the member's name in lower case."""
    cases = " ".join(f"when {int(number)} then '{number.name.lower()}'" for number in numbers)
    return f"case {column} {cases} end"
