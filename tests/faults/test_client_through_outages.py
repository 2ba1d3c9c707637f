"""An application that uses the real client, through the loss of every server in turn: each debit counts once."""

import threading
from collections.abc import Callable

import pytest

from creditlane import Client, CreditlaneError, OutcomeUnknown, Result, Settings, Unavailable
from creditlane.audit.whole import verify
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis

from ..roles import migrate_with_roles
from .extent import SEEDS
from .worker_processes import DEADLINE_SECONDS, StartWorker, wait_for

PARTITIONS = 8
INITIAL_BALANCE = 1_000_000


class Application:
    """Debits one account over and over, each until its outcome is known, as the documentation says."""

    def __init__(self, client: Client, number: int) -> None:
        self.account_id = client.open_account(customer_id=f"customer {number}", initial_balance=INITIAL_BALANCE).id
        self.results: list[Result] = []
        #: Attempts that ended without an outcome.
        self.unknown = 0
        self._client = client
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.results.append(self._debit(f"{self.account_id} {len(self.results)}"))
        except BaseException as error:  # noqa: BLE001  # it is raised again by stop()
            self._failure = error

    def _debit(self, key: str) -> Result:
        while True:
            try:
                return self._client.debit(self.account_id, 1, reference="work", idempotency_key=key, timeout=1.0)
            except (OutcomeUnknown, Unavailable):
                self.unknown += 1
                if self._stopping.wait(0.01) and self.unknown > 1_000:
                    raise CreditlaneError(f"no outcome for {key}") from None


@pytest.mark.parametrize("seed", SEEDS)
def test_each_debit_counts_once_and_every_answer_is_true(
    seed: int,
    own_postgres: Callable[[], EmbeddedPostgres],
    own_redis: Callable[[], EmbeddedRedis],
    start_worker: StartWorker,
) -> None:
    # Given applications at work
    postgres, redis = own_postgres(), own_redis()
    migrate_with_roles(postgres.url, PARTITIONS)
    settings = Settings(redis_url=redis.url, database_url=postgres.url, lease_seconds=1.0)
    worker = start_worker(settings)
    with Client(settings) as client:
        applications = [Application(client, number) for number in range(3 + seed)]

        def all_go_on() -> None:
            counts = [len(application.results) for application in applications]
            wait_for(
                lambda: all(len(a.results) > count + 5 for a, count in zip(applications, counts, strict=True)),
                "every application going on",
            )

        # When each server is lost and comes back
        all_go_on()
        redis.kill()
        redis.start()
        all_go_on()
        postgres.stop(immediate=True)
        postgres.start()
        all_go_on()
        worker.end()
        start_worker(settings)
        all_go_on()
        for application in applications:
            application.stop()
        # Then every debit took 1, once, and each application got its own history in order
        for application in applications:
            balances = [result.balance for result in application.results]
            assert balances == [INITIAL_BALANCE - number for number in range(1, len(balances) + 1)]
            assert client.balance(application.account_id) == balances[-1]
    assert verify(postgres.url).failed == []
