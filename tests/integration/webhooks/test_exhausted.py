"""Deliveries whose attempts are used up are failed jobs, which RQ's own commands send again."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from creditlane.lanes.rq_queues import DELIVERIES
from creditlane.schemas.commands import OpenAccount
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.queues import open_queue

from .publisher import Publisher
from .receiver import Receiver, plain

Deliver = Callable[[], dict[str, int]]

OPEN_BOB = OpenAccount(account_id="cca_" + "b" * 32, idempotency_key="open bob", customer_id="bob")


def work(queue: Queue) -> None:
    """Run every job of the queue, as a worker process does."""
    # With the connection of the queue, and without the scheduler.
    SimpleWorker([queue], connection=queue.connection, serializer=JSONSerializer).work(
        burst=True, logging_level="ERROR"
    )


@pytest.fixture
def queue(sending: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("redis_url", "database_url", "redis_prefix"):
        monkeypatch.setenv(f"CREDITLANE_{name.upper()}", str(getattr(sending, name)))
    with redis.Redis.from_url(sending.require_redis_url()) as connection:
        yield open_queue(sending, DELIVERIES, connection)


def test_used_up_deliveries_are_failed_jobs_that_can_be_requeued(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, queue: Queue
) -> None:
    receiver.answer("/hook", plain(500), plain(200))
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    publisher.happen(OPEN_BOB)
    deliver_fifth(publisher, deliver)
    assert queue.count == 1

    work(queue)
    registry = FailedJobRegistry(queue=queue)
    (identifier,) = registry.get_job_ids()
    job = queue.fetch_job(identifier)
    assert job is not None
    assert "DeliveriesExhausted" in str(job.latest_result().exc_string)  # type: ignore[union-attr]
    assert receiver.received[0].webhook_id in str(job.latest_result().exc_string)  # type: ignore[union-attr]

    registry.requeue(identifier)
    work(queue)
    assert registry.get_job_ids() == []
    (row,) = publisher.deliveries(endpoint)
    assert (row["status"], row["attempts"]) == (1, 0)
    publisher.make_due(endpoint)
    assert deliver()["delivered"] == 1
    assert len({each.webhook_id for each in receiver.received}) == 1


def deliver_fifth(publisher: Publisher, deliver: Deliver) -> None:
    """Let the first attempt be the fifth."""
    publisher.database.execute(
        "create function fifth() returns trigger language plpgsql as $$ begin new.attempts := 4; return new; end $$"
    )
    publisher.database.execute("create trigger fifth before insert on deliveries for each row execute function fifth()")
    deliver()


def test_without_redis_postgres_still_has_them(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, sending: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sending.__dict__, "redis_url", "redis://127.0.0.1:1/0")
    receiver.answer("/hook", plain(500))
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    publisher.happen(OPEN_BOB)

    deliver_fifth(publisher, deliver)

    assert [row["status"] for row in publisher.deliveries(endpoint)] == [3]
