"""What an operator's tools ask: `/healthz`, `/readyz` and `/metrics`. They need no key and tell of no store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ...schemas.errors import ConfigurationError, CreditlaneError
from ...schemas.installation import READ_INSTALLATION, check_installation
from ..deadlines import deadline_in
from .connections import Connections, connections_of
from .lane_metrics import exposition_of, read_lanes
from .request_metrics import RequestMetrics

#: How long all of the checks together may take, in seconds. Tools that ask for health do not wait for long.
CHECK_SECONDS = 3.0
#: Lanes that nobody applies are named up to this number.
MAX_NAMED_LANES = 10

COUNT_LANES = """
select count(*), array_remove(array_agg(case when worker.worker_id is null then lease.partition end
                                        order by lease.partition), null)
from leases as lease
left join workers as worker on worker.worker_id = lease.worker_id and worker.expires_at > clock_timestamp()
"""

router = APIRouter(include_in_schema=False)


class Readiness(BaseModel):
    """Whether requests can be answered, and what stands in the way."""

    status: str
    #: What is wrong, by what was looked at: redis, postgres, lanes. What is not named is as it should be.
    problems: dict[str, str]


@router.get("/healthz", name="healthz")
async def healthz() -> dict[str, str]:
    """Tell that the process lives, and nothing of what it needs."""
    return {"status": "alive"}


@router.get("/readyz", name="readyz")
async def readyz(request: Request) -> JSONResponse:
    """Tell whether Redis takes writes, Postgres answers, the schema is this version's and every lane has an owner."""
    connections = connections_of(request)
    checks = {"redis": _check_redis(connections), "postgres": _check_schema(connections)}
    until = time.monotonic() + CHECK_SECONDS
    found = await asyncio.gather(*(_problem(check, until) for check in checks.values()))
    problems = {name: problem for name, problem in zip(checks, found, strict=True) if problem is not None}
    if "postgres" not in problems and (problem := await _problem(_check_lanes(connections), until)):
        problems["lanes"] = problem
    readiness = Readiness(status="not_ready" if problems else "ready", problems=problems)
    return JSONResponse(readiness.model_dump(), 503 if problems else 200, headers={"Cache-Control": "no-store"})


@router.get("/metrics", name="metrics")
async def metrics(request: Request) -> Response:
    """Tell the numbers of this process, of the lanes and of the workers, in Prometheus's text format."""
    counted: RequestMetrics = request.app.state.request_metrics
    lanes = exposition_of(await read_lanes(connections_of(request), CHECK_SECONDS))
    return Response(counted.exposition() + lanes, media_type=CONTENT_TYPE_LATEST)


async def _problem(check: Awaitable[str | None], until: float) -> str | None:
    """Return what the check says is wrong, or that it takes too long. Messages name no host and no URL."""
    try:
        return await asyncio.wait_for(check, until - time.monotonic())
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


async def _check_lanes(connections: Connections) -> str | None:
    ((count, without_owner),) = await connections.read(COUNT_LANES, {})
    if not without_owner:
        return None
    named = ", ".join(map(str, without_owner[:MAX_NAMED_LANES]))
    more = ", …" if len(without_owner) > MAX_NAMED_LANES else ""
    return f"{len(without_owner)} of {count} have no living worker ({named}{more}); start `creditlane worker`"
