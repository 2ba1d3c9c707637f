"""What keeps the lanes from getting on, as far as Postgres, Redis and the workers' own reports show. Pure.

A worker's heartbeat is no proof that it works. So here are judged: what each worker reports of its stages and lanes,
commands that wait while their owner commits nothing, keys of another type, and times that a wrong clock has written.
And which lanes without an owner are on their way from one living worker to another, as when one joins or leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from ...schemas.errors import UpgradeUnfinished
from ...schemas.releases import RELEASE
from ...schemas.worker_metrics import WorkerMetrics

#: What makes a worker alive. Its time is not over, and lies no further ahead than its lease reaches: what lies further
#: ahead was written while the clock was wrong, and says nothing.
IS_ALIVE = """
worker.expires_at > clock_timestamp() and worker.expires_at <= clock_timestamp()
    + make_interval(secs => coalesce(worker.lease_seconds, 300) + 2)
"""

#: The epoch of a lane whose lease is gone.
NO_LEASE = -1
#: Every partition, with its owner if that one is alive, and whether it is nobody's: not even a dead worker's.
READ_LEASES = f"""
select lane.partition, coalesce(lease.epoch, {NO_LEASE}), worker.worker_id,
    lease.partition is not null and lease.worker_id is null
from installation
cross join lateral generate_series(0, installation.partitions - 1) as lane (partition)
left join leases as lease on lease.partition = lane.partition
left join workers as worker on worker.worker_id = lease.worker_id and {IS_ALIVE}
order by lane.partition
"""  # noqa: S608  # the fragment is the constant above

#: Every worker process that is on record, the dead ones too, until another one forgets them.
READ_WORKERS = f"""
select worker_id, host, process_id, started_at, {IS_ALIVE}, stuck, coalesce(lease_seconds, 10),
    extract(epoch from expires_at - clock_timestamp())::float8 - coalesce(lease_seconds, 300),
    (select count(*) from leases where leases.worker_id = worker.worker_id), coalesce(numbers, '{{}}')::text,
    coalesce(release, 0), coalesce(release, 0) < (select required_release from installation)
from workers as worker
order by started_at, worker_id
"""  # noqa: S608  # the fragment is the constant above

#: How far the latest entry of the journal is ahead of the clock, in seconds; null where none is. The clock of a
#: transaction stands still, so that the index on created_at answers this from its last pages.
READ_ENTRIES_AHEAD = """
select extract(epoch from max(created_at) - now())::float8 from journal where created_at > now() + interval '2 seconds'
"""

#: How far ahead of the clock a lease may end, beyond what it lasts, in seconds.
CLOCK_SLACK_SECONDS = 2.0
#: How long a command may wait while its owner commits nothing, and a lane while nothing of it gets done, in leases.
STANDING_LEASES = 2.0


class LeaseRecord(NamedTuple):
    """A row of `READ_LEASES`."""

    partition: int
    #: Grows whenever the lane is taken or given back; `NO_LEASE` where there is no row to take.
    epoch: int
    #: Its living owner.
    owner: str | None
    #: Its last owner has given it back, or it never had one.
    is_nobodys: bool


class LaneContent(NamedTuple):
    """What is on a lane."""

    backlog: int
    lag_seconds: float | None
    #: Why it cannot be read.
    problem: str | None = None


class WorkerRecord(NamedTuple):
    """A row of `READ_WORKERS`."""

    worker_id: str
    host: str
    process_id: int
    started_at: datetime
    is_alive: bool
    is_stuck: bool
    lease_seconds: float
    #: How much longer its time is than its lease: less than 0, unless the clock was wrong.
    ahead_seconds: float
    lanes: int
    metrics_text: str
    #: The number of its release, see `schemas/releases.py`.
    release: int = RELEASE
    #: Its release is older than the ledger takes, so it gets no lanes.
    is_kept_out: bool = False

    @property
    def public_id(self) -> str:
        """Its id without the name of its host, which comes first: for pages that need no key."""
        return "-".join(self.worker_id.rsplit("-", 2)[-2:])

    @property
    def metrics(self) -> WorkerMetrics:
        """What it has counted and reported."""
        return msgspec.json.decode(self.metrics_text, type=WorkerMetrics)


def handover_seconds(workers: Iterable[WorkerRecord]) -> float | None:
    """Return how long a lane may be on its way between workers; None where no worker is there to take it.

    Who takes a lane sees at its next heartbeat that it is nobody's, and there are several in a lease. So after a
    lease nobody is going to, as nobody has a heartbeat any more who has had none for that long.
    """
    takers = (worker for worker in workers if worker.is_alive and not worker.is_stuck and not worker.is_kept_out)
    return max((worker.lease_seconds for worker in takers), default=None)


class LanesWithoutOwner:
    """Since when each lane has been seen without an owner, by one process that asks again and again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: By partition and epoch, which keeps apart two hand-overs and one that lasts.
        self._since: dict[tuple[int, int], float] = {}

    def observe(self, leases: Iterable[LeaseRecord], workers: Iterable[WorkerRecord]) -> list[int]:
        """Return the lanes that nobody applies now, without those that are being handed over.

        One that was not being handed over, since its owner was dead or no worker was there, is none of these again
        before it has an owner.
        """
        now, handover = self._clock(), handover_seconds(workers)
        self._since = {
            (lease.partition, lease.epoch): self._since.get((lease.partition, lease.epoch), now)
            if lease.is_nobodys and handover is not None
            else float("-inf")
            for lease in leases
            if lease.owner is None
        }
        return [partition for (partition, _), since in self._since.items() if now - since > (handover or 0.0)]


def problems_of_worker(worker: WorkerRecord) -> list[str]:
    """Return what keeps a worker from getting on, and of one that is gone, what keeps its lanes from others."""
    problems = []
    if worker.ahead_seconds > CLOCK_SLACK_SECONDS and worker.lanes:
        problems.append(f"its lease ends {worker.ahead_seconds:.0f} s too late: the clock of Postgres was ahead")
    if worker.is_alive:
        problems += [
            f"{stage} has not got on for {trouble.seconds:.0f} s, {trouble.failures} attempts failed: {trouble.cause}"
            for stage, trouble in worker.metrics.troubles.items()
            if worker.is_stuck or trouble.seconds > worker.lease_seconds
        ]
        if worker.is_stuck:
            problems.append("it does not get on, so it owns no lanes")
        if worker.is_kept_out:
            problems.append("it is of an older release than this ledger takes, so it gets no lanes; start a newer one")
    return problems


def problems_of_lanes(
    leases: Iterable[LeaseRecord],
    workers: Iterable[WorkerRecord],
    contents: Mapping[int, LaneContent],
) -> dict[int, str]:
    """Return why lanes do not get on, of those that have a living owner, or can have none, or cannot be read."""
    reports = {worker.worker_id: (worker.lease_seconds, worker.metrics) for worker in workers if worker.is_alive}
    problems: dict[int, str] = {}
    for partition, epoch, owner, _ in leases:
        content = contents.get(partition, LaneContent(0, None))
        if epoch == NO_LEASE:
            problems[partition] = "its row in leases is gone, so no worker can take it; run `creditlane migrate`"
        elif content.problem is not None:
            problems[partition] = content.problem
        elif owner in reports and (problem := _standing(partition, content, *reports[owner])) is not None:
            problems[partition] = problem
    return problems


def _standing(partition: int, content: LaneContent, lease_seconds: float, metrics: WorkerMetrics) -> str | None:
    fault = metrics.lane_faults.get(str(partition))
    if fault is not None:
        return fault
    most_seconds = STANDING_LEASES * lease_seconds
    standing = metrics.standing_lanes.get(partition, 0.0)
    if standing > most_seconds:
        return f"what was read of it is not done with since {standing:.0f} s"
    idle, lag = metrics.seconds_since_commit, content.lag_seconds
    if lag is not None and idle is not None and min(lag, idle) > most_seconds:
        return f"a command waits for {lag:.0f} s, and its owner has committed nothing for {idle:.0f} s"
    return None


def count_older(workers: Iterable[WorkerRecord]) -> int:
    """Return how many workers keep new commands from being decided: of an older release, and alive or with lanes."""
    return sum(
        worker.release < RELEASE and not worker.is_kept_out and (worker.is_alive or worker.lanes > 0)
        for worker in workers
    )


def problem_of_upgrade(workers: Iterable[WorkerRecord]) -> str | None:
    """Return what an unfinished upgrade keeps from being decided, if somebody has asked for it."""
    workers = list(workers)
    older = count_older(workers)
    refused = sum(worker.metrics.outcomes.get(UpgradeUnfinished.code, 0) for worker in workers if worker.is_alive)
    if not older or not refused:
        return None
    return (
        f"{refused} commands that are new in this release were refused, since {older} workers of an older one are "
        "still there; stop those"
    )


def problem_of_clock(entries_ahead_seconds: float | None) -> str | None:
    """Return what is wrong with the times in the journal."""
    if entries_ahead_seconds is None:
        return None
    return f"the latest entry lies {entries_ahead_seconds:.0f} s ahead: the clock of Postgres was ahead"
