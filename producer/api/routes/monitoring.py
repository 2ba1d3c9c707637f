"""What an operator's tools ask: `/healthz`, `/readyz` and `/metrics`. They need no key and show nothing of a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ....lanes.deadlines import deadline_in
from ....schemas.errors import ConfigurationError, CreditlaneError
from ....schemas.installation import READ_INSTALLATION, check_installation
from ....schemas.roles import FIND_MISSING, check_rights, wanted_by
from ...operations.lane_problems import (
    LanesWithoutOwner,
    WorkerRecord,
    problem_of_clock,
    problem_of_upgrade,
    problems_of_lanes,
    problems_of_worker,
)
from ...operations.lane_status import INFO_CALL, warnings_of
from ..connections import Connections
from ..metrics.background import Background, background_exposition, read_background
from ..metrics.lanes import Lanes, count_dead_letters, exposition_of, read_lanes
from ..metrics.requests import RequestMetrics
from ..read_once_for_many import SharedRead

#: How long all of the checks together may take, in seconds. Tools that ask for health do not wait for long.
CHECK_SECONDS = 3.0
#: How long the lanes are known from one read of them, in seconds. Nobody needs a key to ask.
LANES_GOOD_SECONDS = 1.0
#: How long `/metrics` stays the same, in seconds: making it anew takes many times as long as sending it.
METRICS_GOOD_SECONDS = 1.0
#: How long what Redis says of its set-up stays good, in seconds.
REDIS_GOOD_SECONDS = 10.0
#: Lanes that nobody applies are named up to this number.
MAX_NAMED_LANES = 10

_log = structlog.get_logger(__name__)

router: APIRouter = APIRouter(include_in_schema=False)


class Readiness(BaseModel):
    """Whether requests can be answered, and what stands in the way."""

    status: str
    #: What keeps requests from being served, by what was checked: redis, postgres, and where this one answers, lanes
    #: and workers.
    problems: dict[str, str]
    #: What is wrong beside that, and keeps nothing from being served: redis, workers, clock, upgrade.
    warnings: dict[str, str]


@router.get("/healthz", name="healthz")
async def healthz() -> dict[str, str]:
    """Say that the process lives, and nothing of what it needs."""
    return {"status": "alive"}


@router.get("/readyz", name="readyz")
async def readyz(request: Request) -> JSONResponse:
    """Say whether Redis takes writes, Postgres answers, the schema is this version's, and every lane gets on."""
    watch: Watch = request.app.state.watch
    redis, postgres, seen, report = await asyncio.gather(
        watch.redis.result(), watch.postgres.result(), watch.lanes.result(), watch.redis_report.result()
    )
    work, warnings = _problems_of_work(seen) if postgres is None else ({}, {})
    servers = {"redis": report.refusal or redis, "postgres": postgres}
    problems = work | {name: problem for name, problem in servers.items() if problem is not None}
    if report.warnings:
        warnings["redis"] = "; ".join(report.warnings)
    readiness = Readiness(status="not_ready" if problems else "ready", problems=problems, warnings=warnings)
    return JSONResponse(readiness.model_dump(), 503 if problems else 200)


@router.get("/metrics", name="metrics")
async def metrics(request: Request) -> Response:
    """Show the metrics of this process, lanes, workers and the work beside them, in Prometheus's text format."""
    watch: Watch = request.app.state.watch
    return Response(await watch.metrics.result(), media_type=CONTENT_TYPE_LATEST)


class LanesSeen(NamedTuple):
    """What was read of the lanes, and what follows only from several reads of them."""

    lanes: Lanes
    #: Those that nobody applies, without those that are being handed over.
    without_owner: list[int]


class RedisReport(NamedTuple):
    """What Redis says of itself, judged; nothing where it cannot be asked."""

    #: Why it cannot have the lanes.
    refusal: str | None = None
    warnings: tuple[str, ...] = ()


class Watch:
    """What is read for all who ask: however many they are, one read of each kind is under way at a time."""

    def __init__(self, connections: Connections, counted: RequestMetrics) -> None:
        self.redis: SharedRead[str | None] = SharedRead(lambda: _problem(_check_redis(connections)))
        self.postgres: SharedRead[str | None] = SharedRead(lambda: _problem(_check_schema(connections)))
        self.lanes: SharedRead[LanesSeen] = SharedRead(
            lambda: self._read_lanes(connections), good_seconds=LANES_GOOD_SECONDS
        )
        self.dead_letters: SharedRead[int | None] = SharedRead(
            lambda: count_dead_letters(connections, CHECK_SECONDS), good_seconds=LANES_GOOD_SECONDS
        )
        self.background: SharedRead[Background] = SharedRead(
            lambda: read_background(connections, CHECK_SECONDS), good_seconds=LANES_GOOD_SECONDS
        )
        self.metrics: SharedRead[bytes] = SharedRead(
            lambda: self._exposition(counted), good_seconds=METRICS_GOOD_SECONDS
        )
        self.redis_report: SharedRead[RedisReport] = SharedRead(
            lambda: self._read_redis_report(connections), good_seconds=REDIS_GOOD_SECONDS
        )
        self._lanes_without_owner = LanesWithoutOwner(time.monotonic)
        self._logged = RedisReport()

    async def log_start(self) -> None:
        """Check the servers once, and log why nothing can be served and what to warn of."""
        problem, _ = await asyncio.gather(self.postgres.result(), self.redis_report.result())
        if problem is not None:
            _log.error("cannot serve yet", postgres=problem)

    async def close(self) -> None:
        """End what is under way."""
        for read in (
            self.metrics,
            self.redis,
            self.postgres,
            self.lanes,
            self.dead_letters,
            self.background,
            self.redis_report,
        ):
            await read.close()

    async def _read_redis_report(self, connections: Connections) -> RedisReport:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                report = RedisReport(warnings=tuple(warnings_of(await connections.session.wire.exchange([INFO_CALL]))))
        except ConfigurationError as error:
            report = RedisReport(refusal=error.message)
        except (CreditlaneError, TimeoutError):
            return RedisReport()
        if report != self._logged:
            if report.refusal is not None:
                _log.error("cannot serve", redis=report.refusal)
            for warning in report.warnings:
                _log.warning("commands can be lost or refused", redis=warning)
            self._logged = report
        return report

    async def _exposition(self, counted: RequestMetrics) -> bytes:
        seen, dead_letters, background = await asyncio.gather(
            self.lanes.result(), self.dead_letters.result(), self.background.result()
        )
        return counted.exposition() + exposition_of(seen.lanes, dead_letters) + background_exposition(background)

    async def _read_lanes(self, connections: Connections) -> LanesSeen:
        # Half of the time for each server, which are asked one after the other.
        lanes = await read_lanes(connections, CHECK_SECONDS / 2)
        if lanes.leases is None:
            return LanesSeen(lanes, [])
        return LanesSeen(lanes, self._lanes_without_owner.observe(lanes.leases, lanes.workers))


async def _problem(check: Awaitable[str | None]) -> str | None:
    """Return what the check says is wrong, or that it takes too long. Messages name no host and no URL."""
    try:
        return await asyncio.wait_for(check, CHECK_SECONDS)
    except TimeoutError:
        return f"does not answer within {CHECK_SECONDS:g} s"
    except ConfigurationError as error:
        return error.message
    except CreditlaneError:
        return "cannot be reached"


async def _check_redis(connections: Connections) -> str | None:
    return await connections.session.write_problem(deadline_in(CHECK_SECONDS))


async def _check_schema(connections: Connections) -> None:
    rows = await connections.read(READ_INSTALLATION, {})
    check_installation(rows[0] if rows else None, connections.settings.partitions)
    check_rights("api", await connections.read(FIND_MISSING, wanted_by("api")))


def _problems_of_work(seen: LanesSeen) -> tuple[dict[str, str], dict[str, str]]:
    """Return what keeps the lanes from getting on, and what is wrong beside that. What is not known is not well."""
    lanes = seen.lanes
    if lanes.leases is None:
        return {"lanes": f"Postgres does not answer within {CHECK_SECONDS / 2:g} s"}, {}
    standing = problems_of_lanes(lanes.leases, lanes.workers, lanes.contents or {})
    about_lanes = "; ".join(_about_lanes(len(lanes.leases), seen.without_owner, standing))
    # A worker that holds no lane keeps nothing from getting on; where lanes stand, it may say why nobody takes them.
    needed = [worker for worker in lanes.workers if about_lanes or worker.lanes]
    problems = {"lanes": about_lanes, "workers": _about_workers(needed)}
    warnings = {
        "workers": _about_workers(worker for worker in lanes.workers if worker not in needed),
        "clock": problem_of_clock(lanes.entries_ahead_seconds or None) or "",
        "upgrade": problem_of_upgrade(lanes.workers) or "",
    }
    return _named(problems), _named(warnings)


def _named(problems: Mapping[str, str]) -> dict[str, str]:
    return {name: problem for name, problem in problems.items() if problem}


def _about_workers(workers: Iterable[WorkerRecord]) -> str:
    return "; ".join(f"{worker.public_id}: {problem}" for worker in workers for problem in problems_of_worker(worker))


def _about_lanes(lanes: int, without_owner: Sequence[int], problems: Mapping[int, str]) -> Iterator[str]:
    if without_owner:
        named = ", ".join(map(str, without_owner[:MAX_NAMED_LANES]))
        more = ", …" if len(without_owner) > MAX_NAMED_LANES else ""
        yield f"{len(without_owner)} of {lanes} have no living worker ({named}{more}); start `creditlane worker`"
    if problems:
        named = "; ".join(f"{partition}: {problem}" for partition, problem in list(problems.items())[:MAX_NAMED_LANES])
        more = "; …" if len(problems) > MAX_NAMED_LANES else ""
        yield f"{len(problems)} of {lanes} do not get on ({named}{more})"
