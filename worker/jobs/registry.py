"""Every kind of job there is: what it is called, when it is due, what does it, how long it may take."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from croniter import croniter  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from .runs import Outcome, Run

HOUR_SECONDS = 3_600


class JobKind(NamedTuple):
    """A kind of job."""

    #: The module of `tasks` whose function `perform` does it.
    module: str
    #: When it is due, as cron writes it, in UTC; None: only on request.
    schedule: str | None
    #: How long it may take before it counts as hung, in seconds.
    timeout_seconds: int
    summary: str

    def load(self) -> Callable[[Run], Outcome]:
        """Return what does it. Imported only here: most processes never need most of them."""
        module = importlib.import_module(f"{__package__}.tasks.{self.module}")
        return cast("Callable[[Run], Outcome]", module.perform)


KINDS: dict[str, JobKind] = {
    "statistics": JobKind("statistics", "* * * * *", HOUR_SECONDS, "count what `status` shows of each store"),
    "verify-recent": JobKind("verify_recent", "*/10 * * * *", 2 * HOUR_SECONDS, "prove the rows that are new"),
    "verify": JobKind("verify_whole", "30 2 * * *", 24 * HOUR_SECONDS, "prove the whole ledger"),
    "retention": JobKind("retention", "15 * * * *", 6 * HOUR_SECONDS, "forget what is over and old"),
    "export": JobKind("resumable_export", None, 24 * HOUR_SECONDS, "write the entries of a period to files"),
}

#: The kinds that become due by themselves.
SCHEDULED: dict[str, str] = {name: kind.schedule for name, kind in KINDS.items() if kind.schedule is not None}


def next_due(schedule: str, after: datetime) -> datetime:
    """Return the first due time after this moment."""
    return cast("datetime", croniter(schedule, after).get_next(datetime))
