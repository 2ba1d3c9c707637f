"""Rounds of deliveries: side by side, cut short, killed, and never held up by an endpoint that hangs."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from standardwebhooks.webhooks import Webhook

from creditlane.schemas.commands import Credit, Freeze, OpenAccount
from creditlane.schemas.events import new_secret
from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks import delivery_round, endpoint_leases, shutdown
from creditlane.worker.webhooks.concurrency import MAX_CONCURRENCY

from .publisher import Publisher
from .receiver import Receiver, plain

Deliver = Callable[[], dict[str, int]]

BOB = "cca_" + "b" * 32
OPEN_BOB = OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob")
ROUND = "from creditlane.worker.webhooks.delivery_round import deliver_round; deliver_round()"


@pytest.fixture
def side() -> Iterator[Callable[[Deliver], "Future[dict[str, int]]"]]:
    """Runs rounds in threads of their own."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit


def credit(publisher: Publisher, count: int, first: int = 0) -> None:
    """Let so many credits happen, a hundred in a transaction, to endpoints that want to know of nothing else."""
    if first == 0:
        publisher.database.execute("update webhook_endpoints set events = '{credits.granted}'")
        publisher.store.apply(OPEN_BOB)
    for start in range(first, first + count, 100):
        keys = range(start, min(start + 100, first + count))
        publisher.store.apply(
            *[Credit(account_id=BOB, idempotency_key=f"c{key}", amount=1, reference="r") for key in keys]
        )


def test_an_endpoint_that_hangs_does_not_delay_another(
    publisher: Publisher, receiver: Receiver, sending: Settings, side: Callable[[Deliver], "Future[dict[str, int]]"]
) -> None:
    """Given an endpoint that does not answer, when there are many events, then another has got all of them while the
    first request is still open, and also those that happen meanwhile."""
    hanging = publisher.add_endpoint(receiver.url("/hanging"))
    publisher.add_endpoint(receiver.url("/healthy"))
    receiver.answer("/hanging", receiver.hold)
    credit(publisher, 300)

    done = side(lambda: delivery_round.deliver_round(sending))
    receiver.wait_for(lambda: len(receiver.at("/healthy")) == 300)
    credit(publisher, 100, first=300)
    receiver.wait_for(lambda: len(receiver.at("/healthy")) == 400)

    assert len(receiver.at("/hanging")) == 1
    assert {row["attempts"] for row in publisher.deliveries(hanging)} == {0}
    receiver.let_go()
    assert done.result()["delivered"] == 800
    assert len({each.webhook_id for each in receiver.at("/hanging")}) == 400


def test_two_rounds_at_once_deliver_each_event_once(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, side: Callable[[Deliver], "Future[dict[str, int]]"]
) -> None:
    paths = [f"/{number}" for number in range(8)]
    for path in paths:
        publisher.add_endpoint(receiver.url(path))
    credit(publisher, 200)

    both = [side(deliver), side(deliver)]
    delivered = [each.result()["delivered"] for each in both]

    assert sum(delivered) == 200 * len(paths)
    counts = Counter((each.path, each.webhook_id) for each in receiver.received)
    assert set(counts.values()) == {1}
    assert len(counts) == 200 * len(paths)


def test_what_a_killed_process_was_sending_is_sent_again_under_the_same_id(
    publisher: Publisher,
    receiver: Receiver,
    deliver: Deliver,
    sending: Settings,
    environment_of: Callable[[Settings], dict[str, str]],
) -> None:
    """Given a process that is killed while an answer is awaited, when its lease has run out, then another process sends
    everything, and only what was under way is sent twice."""
    publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", *[plain(200)] * 50, receiver.hold)
    credit(publisher, 200)
    process = subprocess.Popen([sys.executable, "-c", ROUND], env=environment_of(sending))
    receiver.wait_for(lambda: len(receiver.received) > 50)
    process.send_signal(signal.SIGKILL)
    process.wait()
    receiver.answer("/hook", plain(200))

    assert deliver()["delivered"] == 0, "the lease still stands"
    publisher.database.execute("update webhook_endpoints set sender_until = now()")
    deliver()

    counts = Counter(each.webhook_id for each in receiver.received)
    assert len(counts) == 200
    bodies = {each.webhook_id: each.body for each in receiver.received}
    assert all(each.body == bodies[each.webhook_id] for each in receiver.received)
    # Those that were under way, and those whose results were not yet written.
    assert sum(counts.values()) <= 200 + 50 + MAX_CONCURRENCY
    assert publisher.database.execute("select count(*) from deliveries where status <> 2").fetchone() == (0,)


def test_a_slice_ends_with_work_left_and_gives_everything_back(
    publisher: Publisher, receiver: Receiver, sending: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At endpoints that do not fail, a slice goes on for as long again as a request may take: 0.3 s are left of it.
    monkeypatch.setattr(delivery_round, "SLICE_SECONDS", 0.3 - sending.webhook_timeout_seconds)
    publisher.add_endpoint(receiver.url())
    credit(publisher, 2_000)

    first = delivery_round.deliver_round(sending)
    held = publisher.database.execute("select sender from webhook_endpoints").fetchone()
    monkeypatch.undo()
    second = delivery_round.deliver_round(sending)

    assert first["unfinished"] == 1
    assert held == (None,)
    assert second["unfinished"] == 0
    assert first["delivered"] + second["delivered"] == 2_000
    assert len(receiver.received) == len({each.webhook_id for each in receiver.received}) == 2_000


def test_the_last_part_of_a_round_begins_nothing_at_endpoints_that_fail(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an endpoint that fails and could hold up the end of the round, then it waits for the next one."""
    failing = publisher.add_endpoint(receiver.url("/failing"))
    publisher.add_endpoint(receiver.url("/healthy"))
    publisher.database.execute("update webhook_endpoints set failing_since = now() where endpoint_id = %s", [failing])
    credit(publisher, 10)

    with monkeypatch.context() as late:
        late.setattr(delivery_round, "SLICE_SECONDS", 0.0)
        deliver()
    assert {each.path for each in receiver.received} == {"/healthy"}
    deliver()

    assert len(receiver.at("/failing")) == len(receiver.at("/healthy")) == 10


def test_a_process_that_is_to_end_begins_nothing_more(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "_stopping", threading.Event())
    publisher.add_endpoint(receiver.url())
    credit(publisher, 10)

    shutdown.stop_soon()
    done = deliver()

    assert (done["delivered"], receiver.received) == (0, [])


def test_a_cut_connection_to_postgres_ends_the_round_and_loses_nothing(
    publisher: Publisher,
    receiver: Receiver,
    deliver: Deliver,
    sending: Settings,
    side: Callable[[Deliver], "Future[dict[str, int]]"],
) -> None:
    publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", plain(200), receiver.hold)
    credit(publisher, 20)
    done = side(lambda: delivery_round.deliver_round(sending))
    receiver.wait_for(lambda: len(receiver.received) > 1)

    publisher.database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and application_name like 'creditlane-jobs%'"
    )
    done.result()
    receiver.let_go()
    publisher.database.execute("update webhook_endpoints set sender_until = now()")
    deliver()

    assert len({each.webhook_id for each in receiver.received}) == 20
    assert publisher.database.execute("select count(*) from deliveries where status <> 2").fetchone() == (0,)


def test_who_changes_an_endpoint_sees_it_in_what_happens_next(
    publisher: Publisher, receiver: Receiver, sending: Settings, side: Callable[[Deliver], "Future[dict[str, int]]"]
) -> None:
    """Given a process that is sending to an endpoint, when its secret and URL are changed, then what happens after that
    goes to the new URL, signed with both; and when it is disabled, nothing does."""
    endpoint = publisher.add_endpoint(receiver.url("/old"))
    receiver.answer("/old", receiver.hold)
    credit(publisher, 1)
    done = side(lambda: delivery_round.deliver_round(sending))
    receiver.wait_for(lambda: len(receiver.received) == 1)

    new = new_secret()
    publisher.database.execute(
        "update webhook_endpoints set url = %s, previous_secret = secret, secret = %s, "
        "previous_secret_until = now() + interval '1 day'",
        [receiver.url("/new"), new],
    )
    credit(publisher, 1, first=1)
    receiver.let_go()
    receiver.wait_for(lambda: len(receiver.at("/new")) == 1)
    publisher.database.execute("update webhook_endpoints set status = 2")
    credit(publisher, 1, first=2)
    done.result()

    (request,) = receiver.at("/new")
    assert Webhook(new).verify(request.body, request.headers)
    assert "creem-signature-previous" in request.headers
    assert len(receiver.received) == 2
    assert len(publisher.deliveries(endpoint)) == 2


def test_a_process_whose_lease_was_taken_sends_nothing_more(
    publisher: Publisher,
    receiver: Receiver,
    sending: Settings,
    side: Callable[[Deliver], "Future[dict[str, int]]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint_leases, "RENEW_SECONDS", 0.05)
    publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", receiver.hold)
    credit(publisher, 20)
    done = side(lambda: delivery_round.deliver_round(sending))
    receiver.wait_for(lambda: len(receiver.received) == 1)

    publisher.database.execute(
        "update webhook_endpoints set sender = 'another', sender_until = now() + interval '1 hour'"
    )
    publisher.database.execute("select pg_sleep(0.3)")
    receiver.let_go()

    assert done.result()["delivered"] == 1
    assert publisher.database.execute("select sender from webhook_endpoints").fetchone() == ("another",)


def test_a_round_is_a_job_of_json_alone(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.add_endpoint(receiver.url())
    publisher.happen(OPEN_BOB, Freeze(account_id=BOB, idempotency_key="f"))

    done = deliver()

    assert json.loads(json.dumps(done)) == done == {"fanned_out": 2, "delivered": 2, "failed": 0, "unfinished": 0}
