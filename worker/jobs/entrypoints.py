"""The functions that a job in RQ may name, with what arguments. Nothing else that stands in Redis is ever called.

Whoever can write to Redis can write jobs, and RQ imports and calls whatever a job names. Here a name is looked up in a
table of ours, before anything is imported, and what is called comes from the table.

A name is stored with its job for as long as the job is, in RQ's failed registry without an end, so it is data: it stays
in the table whatever becomes of the module that it once named. Each function has two. Jobs are still made under the
first, by which release 0.1.0 knows it: its processes refuse what they do not know, and may run beside these. The second
names this module, which no move of a function changes; it is accepted, and jobs are to be made under it once every
release that may run beside this one knows it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, cast

from pydantic import Field, TypeAdapter, ValidationError

from ...lanes.encoding import describe
from ...schemas.errors import JobRefused

_PACKAGE = __package__.removesuffix(".jobs")

#: What delivers: a round of a few seconds, of everything that is due.
ROUND = f"{_PACKAGE}.webhooks.rounds.deliver_round"
#: What RQ calls for a run.
PERFORM_RUN = f"{_PACKAGE}.jobs.runs.perform_run"
#: What shows deliveries whose attempts are used up.
REPORT_EXHAUSTED = f"{_PACKAGE}.webhooks.exhausted.report_exhausted"

#: Most events that one job names.
MAX_EVENTS = 1_000

_StoreId = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
_RunId = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_UuidText = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")]
_EventIds = Annotated[list[_UuidText], Field(max_length=MAX_EVENTS)]


class EntryPoint(NamedTuple):
    """A function that jobs call."""

    module: str
    function: str
    #: What its arguments must be, in order.
    arguments: Any


#: By the names that jobs have. One that was in a release is never taken out.
ENTRY_POINTS: dict[str, EntryPoint] = {
    ROUND: EntryPoint("webhooks.delivery_round", "deliver_round", tuple[()]),
    PERFORM_RUN: EntryPoint("jobs.runs", "perform_run", tuple[_RunId]),
    REPORT_EXHAUSTED: EntryPoint("webhooks.exhausted", "report_exhausted", tuple[_StoreId, _UuidText, _EventIds]),
}
ENTRY_POINTS |= {f"{__package__}.entrypoints.{entry.function}": entry for entry in ENTRY_POINTS.values()}


class Call(NamedTuple):
    """What a job comes down to."""

    function: Callable[..., Any]
    arguments: Sequence[Any]


def check_call(name: object, instance: object, arguments: object, named_arguments: object) -> None:
    """Let what a job names pass, if it is an entry point with arguments that it takes. Imports nothing.

    Raises:
        JobRefused: it is not; the message says what is wrong.
    """
    _checked(name, instance, arguments, named_arguments)


def call_of(name: object, instance: object, arguments: object, named_arguments: object) -> Call:
    """Return what to call for the job, which is imported only once the job has passed.

    Raises:
        JobRefused: the job may not be done; the message says why.
    """
    entry, checked = _checked(name, instance, arguments, named_arguments)
    module = importlib.import_module(f"{_PACKAGE}.{entry.module}")
    return Call(cast("Callable[..., Any]", getattr(module, entry.function)), checked)


def _checked(
    name: object, instance: object, arguments: object, named_arguments: object
) -> tuple[EntryPoint, Sequence[Any]]:
    entry = ENTRY_POINTS.get(name) if isinstance(name, str) else None
    if entry is None:
        raise JobRefused("it names a function that is none of Creditlane's jobs")
    if instance is not None:
        raise JobRefused("it names a method of an object; Creditlane's jobs are functions")
    if named_arguments:
        raise JobRefused("it has arguments by name; Creditlane's jobs have none")
    try:
        return entry, _adapter(cast("str", name)).validate_python(arguments)
    except ValidationError as error:
        raise JobRefused(f"its arguments are none of such a job: {describe(error)}") from None


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(ENTRY_POINTS[name].arguments)
