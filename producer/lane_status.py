"""How the lanes are doing: who owns them, how much waits on each and for how long. Reads Postgres and Redis once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from pydantic import BaseModel, ConfigDict

from ..schemas.errors import NotMigrated, Unavailable
from ..schemas.installation import READ_INSTALLATION, check_installation
from ..schemas.keys import Keys
from ..schemas.postgres_sessions import connect
from ..schemas.settings import Settings
from .ledger_pool import read_limits
from .postgres import SESSION_NAME
from .redis_wire import RedisWire
from .wire import Call, refuse_errors

#: Every partition, with its owner if that one is alive.
READ_LEASES = """
select lease.partition, lease.epoch, worker.worker_id
from leases as lease
left join workers as worker on worker.worker_id = lease.worker_id and worker.expires_at > clock_timestamp()
order by lease.partition
"""

#: Every worker process that is on record, the dead ones too, until another one forgets them.
READ_WORKERS = """
select worker_id, host, process_id, started_at, expires_at > clock_timestamp(),
    (select count(*) from leases where leases.worker_id = workers.worker_id)
from workers
order by started_at, worker_id
"""

COUNT_DEAD_LETTERS = "select count(*) from dead_letters where replayed_at is null"


class LaneStatus(BaseModel):
    """One lane."""

    model_config = ConfigDict(frozen=True)

    partition: int
    #: The living worker that applies this lane's commands; None: nobody does.
    owner: str | None
    #: Grows with every change of owner.
    epoch: int
    #: Commands on the lane that are not decided, or not yet deleted.
    backlog: int
    #: Age of the oldest of them; None where there is none.
    lag_seconds: float | None


class WorkerStatus(BaseModel):
    """One worker process."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    host: str
    process_id: int
    started_at: datetime
    #: It has shown life lately.
    alive: bool
    #: Number of lanes that it owns.
    lanes: int


class LanesReport(BaseModel):
    """All lanes of an installation, at one moment."""

    model_config = ConfigDict(frozen=True)

    lanes: list[LaneStatus]
    workers: list[WorkerStatus]
    #: Commands that could not be decided and were not replayed.
    dead_letters: int
    #: Commands on all lanes.
    backlog: int
    #: Age of the oldest command on any lane; None when all are empty.
    lag_seconds: float | None

    @property
    def without_owner(self) -> list[LaneStatus]:
        """The lanes that nobody applies."""
        return [lane for lane in self.lanes if lane.owner is None]


class LaneContent(NamedTuple):
    """What is on a lane."""

    backlog: int
    lag_seconds: float | None


def read_lanes(settings: Settings) -> LanesReport:
    """Return how the lanes are doing.

    Raises:
        ConfigurationError: Redis or Postgres is not set, or the database has another number of partitions.
        Unavailable: Redis or Postgres cannot be reached.
    """
    leases, workers, dead_letters = _read_owners(settings)
    contents = _read_contents(settings, [partition for partition, _, _ in leases])
    lanes = [
        LaneStatus(partition=partition, owner=owner, epoch=epoch, **contents[partition]._asdict())
        for partition, epoch, owner in leases
    ]
    return LanesReport(
        lanes=lanes,
        workers=workers,
        dead_letters=dead_letters,
        backlog=sum(lane.backlog for lane in lanes),
        lag_seconds=max((lane.lag_seconds for lane in lanes if lane.lag_seconds is not None), default=None),
    )


def _read_owners(settings: Settings) -> tuple[list[tuple[int, int, str | None]], list[WorkerStatus], int]:
    try:
        with connect(settings.require_database_url(), name=SESSION_NAME, limits=read_limits()) as connection:
            check_installation(connection.execute(READ_INSTALLATION).fetchone(), settings.partitions)
            leases = connection.execute(READ_LEASES).fetchall()
            workers = [_worker(*row) for row in connection.execute(READ_WORKERS)]
            dead_letters = connection.execute(COUNT_DEAD_LETTERS).fetchone()
    except psycopg.errors.UndefinedTable:
        raise NotMigrated from None
    except psycopg.Error as error:
        raise Unavailable(f"Postgres cannot be read: {error}".strip()) from error
    return leases, workers, dead_letters[0] if dead_letters else 0


def _worker(*row: Any) -> WorkerStatus:
    return WorkerStatus(**dict(zip(WorkerStatus.model_fields, row, strict=True)))


def _read_contents(settings: Settings, partitions: list[int]) -> Mapping[int, LaneContent]:
    wire = RedisWire(settings.require_redis_url())
    try:
        return contents_of(wire.exchange(content_calls(Keys(settings.redis_prefix), partitions)), partitions)
    finally:
        wire.close()


def content_calls(keys: Keys, partitions: Sequence[int]) -> list[Call]:
    """Return the calls that ask Redis what is on these lanes."""
    calls: list[Call] = [("TIME",)]
    for partition in partitions:
        calls += [("XLEN", keys.lane(partition)), ("XRANGE", keys.lane(partition), "-", "+", "COUNT", 1)]
    return calls


def contents_of(answers: Sequence[Any], partitions: Sequence[int]) -> dict[int, LaneContent]:
    """Return what is on each of the lanes, from the answers to `content_calls`.

    Raises:
        Unavailable: Redis refuses to answer.
    """
    (seconds, microseconds), *lanes = refuse_errors(answers)
    now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
    pairs = zip(partitions, lanes[::2], lanes[1::2], strict=True)
    return {partition: LaneContent(backlog, _lag_seconds(first, now_ms)) for partition, backlog, first in pairs}


def _lag_seconds(first: list[Any], now_ms: int) -> float | None:
    """Return the age of a lane's first entry, whose id starts with the moment of its acceptance on Redis's clock."""
    if not first:
        return None
    accepted_ms = int(first[0][0].split(b"-")[0])
    return max(0, now_ms - accepted_ms) / 1_000
