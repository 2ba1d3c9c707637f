"""The release before and this one run beside each other on one ledger, through `migrate`, and nobody notices.

What only this one knows is refused until the workers of the other are gone. Processes of 0.1.0 that run go on over a
newer schema; none is started on it, for 0.1.0 asks for its own and no other.

With CREDITLANE_TEST_LONG=1 several times up and down again, with more processes, and with kills.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import psycopg
import pytest
import redis

from creditlane import Client
from creditlane.audit.whole import verify
from creditlane.lanes.postgres.migrate import migrate
from creditlane.lanes.redis.users import hashed
from creditlane.lanes.routing import partition_of
from creditlane.producer.operations.api_keys import create_key
from creditlane.producer.operations.lane_status import read_lanes
from creditlane.schemas.identifiers import derive_account_id
from creditlane.schemas.roles import Part
from creditlane.schemas.settings import Settings

from ..integration.webhooks.receiver import Receiver
from ..redis_users import PASSWORDS, admit, has_users
from ..roles import let_tests_read, settings_of, setup_of
from .holds import HoldCalls
from .load import INITIAL_BALANCE
from .processes import DEADLINE_SECONDS, Calls, HttpCalls, Line, Process, Running, environment, is_ready, wait_for
from .releases import Release

LONG = os.environ.get("CREDITLANE_TEST_LONG") == "1"
#: Processes of each kind and release.
EACH = 2 if LONG else 1
#: How often the new release is rolled out, and all but the last time rolled back.
TIMES = 3 if LONG else 1
#: Calls that each program makes in each step: more than it takes to reach every lane with every kind of call.
CALLS = 60 if LONG else 12
#: Either puts what is due on its lane.
QUEUES = ("deliveries", "jobs") if LONG else ("deliveries",)
PARTITIONS = 8

pytestmark = pytest.mark.timeout(3_000 if LONG else 600)

#: Prints what the previous release lets the users of Redis do, as lines of an ACL file.
ACL_LINES = """
import json, sys
from creditlane.schemas.redis_users import acl_lines
print(json.dumps(acl_lines(sys.argv[1], json.loads(sys.argv[2]))))
"""
#: What is logged as an error on purpose: holds that 0.1.0 cannot read, an API that waits for `migrate`, and that one is
#: not ready.
EXPECTED_ERRORS = ("command dead-lettered", "cannot serve yet", "/readyz")
OWNERS = "select count(distinct worker_id), count(*) filter (where worker_id is null) from leases"


@pytest.fixture
def settings(redis_url: str, empty_database_url: str, redis_prefix: str) -> Settings:
    """Settings of a ledger that is still to be made."""
    return Settings(
        redis_url=redis_url,
        database_url=empty_database_url,
        redis_prefix=redis_prefix,
        role_prefix=setup_of(empty_database_url).prefix,
        partitions=PARTITIONS,
        lease_seconds=3.0,
        wait_timeout_seconds=DEADLINE_SECONDS,
        webhook_allowed_networks="loopback",
        log_format="json",
    )


@pytest.fixture
def accounts() -> list[str]:
    """An account on every lane."""
    by_lane: dict[int, str] = {}
    number = 0
    while len(by_lane) < PARTITIONS:
        number += 1
        account = derive_account_id("store_default", f"open {number}")
        by_lane.setdefault(partition_of(account, PARTITIONS), account)
    return [by_lane[lane] for lane in sorted(by_lane)]


@pytest.fixture
def ledger(settings: Settings, previous: Release) -> str:
    """A ledger that the previous release has made, with roles and users of its making; gives a key of the API."""
    url, setup = settings.require_database_url(), setup_of(settings.require_database_url())
    passwords = {f"CREDITLANE_{part.upper()}_PASSWORD": password for part, password in setup.passwords.items()}
    previous.run(previous.command("migrate", "--roles"), {**environment(settings), **passwords})
    let_tests_read(url)
    # Those of 0.1.0 are refused what two processes of one queue need of RQ: the changelog says what was mended.
    if has_users(settings.require_redis_url()) and EACH == 1:
        let_in(previous, settings)
    with psycopg.connect(url, autocommit=True) as connection:
        return create_key(connection, settings.store, "test")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def let_in(release: Release, settings: Settings) -> None:
    """Let the users of Redis do what the previous release says, and nothing else."""
    digests = json.dumps({user: hashed(password) for user, password in PASSWORDS.items()})
    lines = release.run(release.program(ACL_LINES, settings.redis_prefix, digests))
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        for line in json.loads(lines):
            client.execute_command("ACL", "SETUSER", *line.split()[1:])


def upgrade_servers(settings: Settings) -> None:
    """Let the users of Redis do what this version says, and migrate the ledger."""
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        admit(client, settings.require_redis_url(), settings.redis_prefix)
    migrate(settings_of("owner", settings).require_database_url())


def as_part(part: Part, settings: Settings) -> dict[str, str]:
    return environment(settings_of(part, settings))


class Rollout:
    """The processes of both releases, and what is asked of them meanwhile."""

    def __init__(self, running: Running, settings: Settings, accounts: list[str], http: HttpCalls, url: str) -> None:
        self._running = running
        #: Gets reversals.
        self._url = url
        self._settings = settings
        self._accounts = accounts
        self._http = http
        self._apis: dict[Process, str] = {}
        self._loads: dict[Process, Calls] = {}
        self._over: list[Calls] = []

    def start(self, release: Release) -> list[Process]:
        """Start all that this release has, one after the other, in the order of the guide."""
        kinds: list[Callable[[Release], Process]] = [
            self._running.worker,
            *(partial(self._running.jobs, queue=queue) for queue in QUEUES),
            self._api,
            self._load,
        ]
        started = []
        for start in kinds:
            started += [start(release) for _ in range(EACH)]
            if start == self._running.worker:
                self.get_on()
        self.get_on()
        return started

    def stop(self, processes: list[Process], *, kill: bool = False) -> None:
        """Stop them one after the other."""
        for process in processes:
            # What became of the last call of a program that is killed, nobody knows.
            process.end() if kill and process not in self._loads else process.stop()
            self._http.urls[:] = [url for api, url in self._apis.items() if api.is_running]
            if process in self._loads:
                self._over.append(self._loads.pop(process))
            self.get_on()

    def stop_asking(self) -> None:
        """Stop every program that asks for something."""
        for process in list(self._loads):
            process.stop()
            self._over.append(self._loads.pop(process))

    def stop_all(self) -> None:
        """Stop whatever is still there."""
        for process in self._running.processes:
            if process.is_running:
                process.stop()

    def get_on(self) -> None:
        """Wait until every program has made many calls more."""
        for calls in (*self._loads.values(), *([self._http] if self._http.is_running else [])):
            calls.wait_for_more(CALLS)

    def lines(self) -> list[Line]:
        """Return what the programs have done."""
        return [line for calls in (*self._over, *self._loads.values(), self._http) for line in calls.lines()]

    def wait_for_workers(self, workers: int) -> None:
        """Wait until so many workers share all the lanes."""
        with psycopg.connect(self._settings.require_database_url(), autocommit=True) as connection:
            shared = (workers, 0)
            wait_for(lambda: connection.execute(OWNERS).fetchone() == shared, f"{workers} workers sharing all lanes")

    @property
    def urls(self) -> set[str]:
        """Where there has been an API."""
        return set(self._apis.values())

    def are_ready(self) -> bool:
        """Return whether every API says that it can be used."""
        return all(map(is_ready, self._http.urls))

    def _api(self, release: Release) -> Process:
        process, url = self._running.api(release)
        self._apis[process] = url
        self._http.urls.append(url)
        return process

    def _load(self, release: Release) -> Process:
        process, calls = self._running.load(release, self._accounts, self._url)
        self._url = "-"
        self._loads[process] = calls
        return process


def check_books(
    settings: Settings, accounts: list[str], lines: list[Line], receiver: Receiver, dead_letters: set[str]
) -> None:
    """Fail unless every call succeeded, each moved what it says once, and all that follows from them has come.

    The keys of `dead_letters` are those of commands that an older worker took off its lane, and no others.
    """
    assert [line for line in lines if "failed" in line] == []
    moved = Counter(dict.fromkeys(accounts, INITIAL_BALANCE))
    for account, amount in (move for line in lines for move in line["moved"]):
        moved[account] += amount
    reversals = sum(1 for line in lines if line["call"] == "reverse")
    wait_for(lambda: len({each.webhook_id for each in receiver.received}) >= reversals, f"{reversals} events")
    assert len({each.webhook_id for each in receiver.received}) == reversals
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        for left in (b"due_commands where enqueued_at is null", b"outbox"):
            counting = b"select count(*) from " + left
            wait_for(lambda counting=counting: connection.execute(counting).fetchone() == (0,), f"nothing in {left!r}")
        letters = connection.execute("select idempotency_key from dead_letters").fetchall()
        # What 0.1.0 does not know, it does not know the key of either.
        assert len(letters) == len(dead_letters)
    with Client(settings) as client:
        wait_for(lambda: {account: client.balance(account) for account in accounts} == moved, f"{moved}")
    assert verify(settings.require_database_url()).discrepancies == 0


def test_both_releases_run_on_one_ledger_through_a_migration(
    ledger: str,
    settings: Settings,
    previous: Release,
    current: Release,
    running: Running,
    accounts: list[str],
    receiver: Receiver,
) -> None:
    """Given the previous release at work, when the ledger is migrated under it, the processes of this version join and
    those leave, then no call fails, each has one effect, nothing that is held is taken, and nobody logs an error."""
    http = HttpCalls([], ledger, accounts)
    rollout = Rollout(running, settings, accounts, http, receiver.url())
    old = rollout.start(previous)
    with http:
        early, early_url = running.api_at_once(current)
        assert not is_ready(early_url)
        upgrade_servers(settings)
        # It is there for those who ask for readiness before they let the old one go, which is ready no more.
        wait_for(lambda: is_ready(early_url), "the API that was started before being ready")
        assert not any(map(is_ready, http.urls))
        early.stop()
        rollout.get_on()
        with HoldCalls(settings, accounts) as holds:
            for time in range(TIMES):
                new = rollout.start(current)
                rollout.wait_for_workers(2 * EACH)
                assert len(read_lanes(settings).workers) >= 2 * EACH
                holds.wait_for("upgrade_unfinished")
                holds.wait_for("dead_lettered")
                if time < TIMES - 1:
                    rollout.stop(new, kill=time % 2 == 0)
                    rollout.wait_for_workers(EACH)
            assert holds.applied == 0
            about_upgrade = read_lanes(settings).upgrade_problem
            rollout.stop(old)
            rollout.wait_for_workers(EACH)
            holds.wait_for("applied")
        assert rollout.are_ready()
    rollout.stop_asking()

    assert about_upgrade is not None
    assert f"since {EACH} workers of an older one are still there" in about_upgrade
    assert read_lanes(settings).upgrade_problem is None
    assert holds.failures == []
    check_books(settings, accounts, rollout.lines(), receiver, holds.dead_letters)
    assert http.answered_by == rollout.urls
    rollout.stop_all()
    troubles = [(process.name, trouble) for process in running.processes for trouble in process.troubles()]
    assert [trouble for trouble in troubles if not any(event in trouble[1] for event in EXPECTED_ERRORS)] == []


def test_a_worker_of_the_previous_release_gets_no_lane_of_a_ledger_that_has_what_is_new(
    ledger: str,
    settings: Settings,
    previous: Release,
    current: Release,
    running: Running,
) -> None:
    """Given a worker of 0.1.0 that was at work, when the ledger takes nobody older any more, then it gets no lane again
    and does not mind, and a worker of this version has all of them."""
    assert ledger
    old = running.worker(previous)
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        wait_for(lambda: connection.execute(OWNERS).fetchone() == (1, 0), "the old worker having all lanes")
        upgrade_servers(settings)
        # As if something new had been decided before it came, which it could not: 0.1.0 starts on its own schema only.
        connection.execute("update installation set required_release = 1")
        connection.execute("update leases set worker_id = null, epoch = epoch + 1")

        running.worker(current)
        wait_for(lambda: connection.execute(OWNERS).fetchone() == (1, 0), "one worker having all lanes")
        owners = connection.execute("select distinct release from leases join workers using (worker_id)").fetchall()

    assert owners == [(1,)]
    assert old.is_running
    (kept_out,) = [worker for worker in read_lanes(settings).workers if worker.release == 0]
    assert (kept_out.alive, kept_out.lanes, len(kept_out.problems)) == (True, 0, 1)
    for process in running.processes:
        process.stop()
        assert process.troubles() == []
