"""A job waits in RQ's failed registry for as long as somebody likes, under the name by which it was made."""

import importlib
import inspect
import json
import threading
import zlib
from typing import Any
from uuid import UUID

import pytest
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.entrypoints import ENTRY_POINTS
from creditlane.worker.jobs.rq_worker import JobsWorker

RUN, EVENTS = [7], [1, str(UUID(int=5)), [str(UUID(int=6)), str(UUID(int=7))]]
#: Every name that a release has made jobs under or will, with arguments of such a job. None is ever taken off here.
STORED = {
    "creditlane.worker.webhooks.rounds.deliver_round": [],
    "creditlane.worker.jobs.runs.perform_run": RUN,
    "creditlane.worker.webhooks.exhausted.report_exhausted": EVENTS,
    "creditlane.worker.jobs.entrypoints.deliver_round": [],
    "creditlane.worker.jobs.entrypoints.perform_run": RUN,
    "creditlane.worker.jobs.entrypoints.report_exhausted": EVENTS,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is called instead of today's functions, with which arguments; the functions would take those."""
    made: list[Any] = []
    for entry in set(ENTRY_POINTS.values()):
        module = importlib.import_module(f"creditlane.worker.{entry.module}")
        takes = inspect.signature(getattr(module, entry.function))

        def call(*arguments: Any, name: str = entry.function, takes: inspect.Signature = takes) -> None:
            takes.bind(*arguments)
            made.append((name, list(arguments)))

        monkeypatch.setattr(module, entry.function, call)
    return made


def store_failed(queue: Queue, identifier: str, name: str, arguments: list[Any]) -> None:
    """Write a job as RQ has kept it, and put it where its process put it when it had failed."""
    data = json.dumps([name, None, arguments, {}]).encode()
    fields = {
        "data": zlib.compress(data),
        "status": "failed",
        "origin": queue.name,
        "description": name,
        "created_at": "2026-01-02T03:04:05.000006Z",
        "failure_ttl": -1,
    }
    queue.connection.hset(f"rq:job:{identifier}", mapping=fields)
    queue.connection.zadd(f"rq:failed:{queue.name}", {identifier: "+inf"})


@pytest.mark.parametrize("name", STORED)
def test_a_failed_job_of_every_stored_name_is_done_when_rq_requeues_it(
    name: str, calls: list[Any], jobs_queue: Queue, settings: Settings
) -> None:
    """Given a job that failed under a name, when RQ's own registry requeues it, then today's function is called with
    its arguments, and the job is among the failed ones no more."""
    identifier = f"{settings.redis_prefix}-old"
    store_failed(jobs_queue, identifier, name, STORED[name])
    worker = JobsWorker(jobs_queue, f"{jobs_queue.name}-today", threading.Event())
    worker.register_birth()

    FailedJobRegistry(jobs_queue.name, connection=jobs_queue.connection, serializer=JSONSerializer).requeue(identifier)
    taken = worker.dequeue_job_and_maintain_ttl(None)
    assert taken is not None
    worker.execute_job(*taken)
    worker.register_death()

    assert calls == [(name.rpartition(".")[2], STORED[name])]
    assert jobs_queue.failed_job_registry.get_job_count(cleanup=False) == 0


def test_no_name_is_missing_from_the_list() -> None:
    assert set(ENTRY_POINTS) == set(STORED)
