"""How the lanes are doing: who owns them, how much waits on each and for how long. Asks Postgres and Redis once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from ...lanes.keys import Keys
from ...lanes.postgres.errors import translated
from ...lanes.postgres.sessions import connect
from ...lanes.postgres.start_check import check_ledger
from ...schemas.errors import Unavailable
from ...schemas.server_requirements import check_redis, fields_of
from ...schemas.settings import Settings
from ..client._sync.redis_connection import RedisWire
from ..client.ledger_sessions import read_limits
from ..client.redis_exchange import Call, refusal_in, refuse_errors, write_check_calls
from ..ledger.read_limits import SESSION_NAME
from .lane_problems import (
    READ_ENTRIES_AHEAD,
    READ_LEASES,
    READ_WORKERS,
    LaneContent,
    LeaseRecord,
    WorkerRecord,
    handover_seconds,
    problem_of_clock,
    problem_of_upgrade,
    problems_of_lanes,
    problems_of_worker,
)

#: Asks Redis what it is and how it is set up.
INFO_CALL: Call = ("INFO",)
#: How Redis begins to say that a key holds something of another type.
_WRONG_TYPE = "WRONGTYPE"

#: Answers the id of a lane's first entry, without the entry itself: a command may be large, and somebody asks of every
#: lane every few seconds.
FIRST_ID_SCRIPT = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return first and first[1]
"""

COUNT_DEAD_LETTERS = "select count(*) from dead_letters where replayed_at is null"


class LaneStatus(BaseModel):
    """One lane."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    partition: int
    #: The living worker that applies this lane's commands; None: nobody does.
    owner: str | None
    #: It has no owner because one has given it back, and there are living workers to take it. For how
    #: long is not known from one answer; more than a lease is too long.
    between_workers: bool
    #: Grows with every change of owner.
    epoch: int
    #: Commands on the lane that are not decided, or not yet deleted.
    backlog: int
    #: Age of the oldest of them; None where there is none.
    lag_seconds: float | None
    #: Why it does not get on though somebody owns it; None where nothing is known.
    problem: str | None


class WorkerStatus(BaseModel):
    """One worker process."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    worker_id: str
    host: str
    process_id: int
    started_at: datetime
    #: It has had a heartbeat lately.
    alive: bool
    #: Number of lanes that it owns.
    lanes: int
    #: It lives but does not get on, so it owns no lanes.
    stuck: bool
    #: The number of its release: 0 is 0.1.0, 1 what came after it.
    release: int
    #: What keeps it.
    problems: list[str]


class LanesReport(BaseModel):
    """All lanes of an installation, at one moment."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    lanes: list[LaneStatus]
    workers: list[WorkerStatus]
    #: Commands that could not be decided and were not replayed.
    dead_letters: int
    #: Commands on all lanes.
    backlog: int
    #: Age of the oldest command on any lane; None when all are empty.
    lag_seconds: float | None
    #: Why Redis takes no writes, or may lose what it took; None where neither is known.
    redis_problem: str | None
    #: What is wrong with the times in the journal; None where nothing is.
    clock_problem: str | None
    #: What is refused until an upgrade is finished; None where nobody has asked for anything such.
    upgrade_problem: str | None

    @property
    def problems(self) -> list[str]:
        """All that keeps lanes and workers from getting on."""
        redis = [] if self.redis_problem is None else [f"redis: {self.redis_problem}"]
        clock = [] if self.clock_problem is None else [f"journal: {self.clock_problem}"]
        return [
            *redis,
            *(f"lane {lane.partition}: {lane.problem}" for lane in self.lanes if lane.problem is not None),
            *(f"worker {worker.worker_id}: {problem}" for worker in self.workers for problem in worker.problems),
            *clock,
            *([] if self.upgrade_problem is None else [f"upgrade: {self.upgrade_problem}"]),
        ]

    @property
    def faults(self) -> list[str]:
        """What keeps commands from being applied: what else is wrong with workers or times does not."""
        unowned = [str(lane.partition) for lane in self.lanes if lane.owner is None]
        faults = [] if self.redis_problem is None else [f"redis: {self.redis_problem}"]
        if unowned:
            lanes = f"{len(unowned)} of {len(self.lanes)} lanes have no living worker ({', '.join(unowned)})"
            faults.append(f"{lanes}; start `creditlane worker`")
        return [*faults, *(f"lane {lane.partition}: {lane.problem}" for lane in self.lanes if lane.problem is not None)]

    @property
    def without_owner(self) -> list[LaneStatus]:
        """The lanes that nobody applies, without those that are between workers."""
        return [lane for lane in self.lanes if lane.owner is None and not lane.between_workers]


class _Ledger(NamedTuple):
    """What Postgres has of it."""

    leases: list[LeaseRecord]
    workers: list[WorkerRecord]
    dead_letters: int
    entries_ahead_seconds: float | None


def read_lanes(settings: Settings) -> LanesReport:
    """Return how the lanes are doing.

    Raises:
        ConfigurationError: Redis or Postgres is not set, or the database has another number of partitions.
        Unavailable: Redis or Postgres cannot be reached.
    """
    ledger = _read_ledger(settings)
    contents, redis_problem = _ask_redis(settings, [lease.partition for lease in ledger.leases])
    problems = problems_of_lanes(ledger.leases, ledger.workers, contents)
    has_takers = handover_seconds(ledger.workers) is not None
    lanes = [
        LaneStatus(
            partition=lease.partition,
            owner=lease.owner,
            between_workers=lease.is_nobodys and has_takers,
            epoch=lease.epoch,
            backlog=contents[lease.partition].backlog,
            lag_seconds=contents[lease.partition].lag_seconds,
            problem=problems.get(lease.partition),
        )
        for lease in ledger.leases
    ]
    return LanesReport(
        lanes=lanes,
        workers=[_status_of(worker) for worker in ledger.workers],
        dead_letters=ledger.dead_letters,
        backlog=sum(lane.backlog for lane in lanes),
        lag_seconds=max((lane.lag_seconds for lane in lanes if lane.lag_seconds is not None), default=None),
        redis_problem=redis_problem,
        clock_problem=problem_of_clock(ledger.entries_ahead_seconds),
        upgrade_problem=problem_of_upgrade(ledger.workers),
    )


def _read_ledger(settings: Settings) -> _Ledger:
    with (
        translated("client", "owner", only_reads=True),
        connect(settings.require_database_url(), name=SESSION_NAME, limits=read_limits()) as connection,
    ):
        check_ledger(connection, settings.partitions)
        leases = [LeaseRecord(*row) for row in connection.execute(READ_LEASES)]
        workers = [WorkerRecord(*row) for row in connection.execute(READ_WORKERS)]
        ((dead_letters,),) = connection.execute(COUNT_DEAD_LETTERS).fetchall()
        ((entries_ahead_seconds,),) = connection.execute(READ_ENTRIES_AHEAD).fetchall()
    return _Ledger(leases, workers, dead_letters, entries_ahead_seconds)


def _status_of(worker: WorkerRecord) -> WorkerStatus:
    return WorkerStatus(
        worker_id=worker.worker_id,
        host=worker.host,
        process_id=worker.process_id,
        started_at=worker.started_at,
        alive=worker.is_alive,
        lanes=worker.lanes,
        stuck=worker.is_stuck,
        release=worker.release,
        problems=problems_of_worker(worker),
    )


def _ask_redis(settings: Settings, partitions: list[int]) -> tuple[Mapping[int, LaneContent], str | None]:
    """Return what is on each lane, and why nothing more can be put there."""
    wire, keys = RedisWire(settings.require_redis_url()), Keys(settings.redis_prefix)
    try:
        warnings = warnings_of(wire.exchange([INFO_CALL]))
        contents = contents_of(wire.exchange(content_calls(keys, partitions)), partitions)
        return contents, _write_problem(wire, keys) or "; ".join(warnings) or None
    finally:
        wire.close()


def _write_problem(wire: RedisWire, keys: Keys) -> str | None:
    """Return why Redis takes no writes now, or None if it does: a full one and a replica answer reads too."""
    try:
        refuse_errors(wire.exchange(write_check_calls(keys)))
    except Unavailable as error:
        return refusal_in(error)
    return None


def warnings_of(answers: Sequence[Any]) -> list[str]:
    """Return what to warn of in a Redis, from the answer to `INFO_CALL`. Nothing where it does not let us ask.

    Raises:
        ConfigurationError: it cannot have the lanes.
    """
    (info,) = answers
    return check_redis(fields_of(info)) if isinstance(info, bytes) else []


def content_calls(keys: Keys, partitions: Sequence[int]) -> list[Call]:
    """Return the calls that ask Redis what is on these lanes."""
    calls: list[Call] = [("TIME",)]
    for partition in partitions:
        calls += [("XLEN", keys.lane(partition)), ("EVAL", FIRST_ID_SCRIPT, 1, keys.lane(partition))]
    return calls


def contents_of(answers: Sequence[Any], partitions: Sequence[int]) -> dict[int, LaneContent]:
    """Return what is on each of the lanes, from the answers to `content_calls`.

    Raises:
        Unavailable: Redis refuses to answer.
    """
    ((seconds, microseconds),) = refuse_errors(answers[:1])
    now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
    pairs = zip(partitions, answers[1::2], answers[2::2], strict=True)
    return {partition: _content_of(backlog, first_id, now_ms) for partition, backlog, first_id in pairs}


def _content_of(backlog: Any, first_id: Any, now_ms: int) -> LaneContent:
    if isinstance(backlog, Exception) and str(backlog).startswith(_WRONG_TYPE):
        return LaneContent(0, None, "its key in Redis holds something that is no stream; move it away")
    refuse_errors([backlog, first_id])
    return LaneContent(backlog, _lag_seconds(first_id, now_ms))


def _lag_seconds(first_id: bytes | None, now_ms: int) -> float | None:
    """Return the age of a lane's first entry; its id starts with the moment of its acceptance on Redis's clock."""
    if first_id is None:
        return None
    accepted_ms = int(first_id.split(b"-")[0])
    return max(0, now_ms - accepted_ms) / 1_000
