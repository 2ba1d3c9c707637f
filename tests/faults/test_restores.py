"""What docs/operations.md says of restores: what each of them loses, and that the lanes flow at once after it."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis

from creditlane.audit.whole import verify
from creditlane.lanes.keys import Keys
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.schemas.commands import Command
from creditlane.schemas.settings import Settings

from ..roles import migrate_with_roles
from .history import History, expected_effects
from .producing import Producer
from .worker_processes import StartWorker, WorkerProcess

PARTITIONS = 8
#: Owners that each lane has after the backup: so many epochs does a restored Postgres know nothing of.
LATER_OWNERS = 2

pytestmark = pytest.mark.timeout(240)

Server = EmbeddedPostgres | EmbeddedRedis


class Stack:
    """Servers of the test's own, copies of them at one moment, and a producer."""

    def __init__(self, postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, start_worker: StartWorker) -> None:
        self._postgres = postgres
        self._redis = redis_server
        self._start_worker = start_worker
        migrate_with_roles(postgres.url, PARTITIONS)
        self.producer = Producer(self.settings)

    @property
    def settings(self) -> Settings:
        return Settings(
            redis_url=self._redis.url,
            database_url=self._postgres.url,
            partitions=PARTITIONS,
            keep_all_results=True,
        )

    @property
    def history(self) -> History:
        return History(self.settings)

    def send(self, count: int) -> list[Command]:
        """Put so many commands on the lanes."""
        before = len(self.producer.accepted)
        self.producer.write(count)
        return self.producer.accepted[before:]

    def work(self) -> None:
        """Start a worker, let it decide all there is, and stop it."""
        [worker] = self.start()
        self.history.wait_until_settled()
        worker.signal(signal.SIGTERM)
        assert worker.wait_for_exit() == 0

    def start(self, workers: int = 1) -> list[WorkerProcess]:
        return [self._start_worker(self.settings) for _ in range(workers)]

    def copy(self) -> None:
        for server in self._servers():
            server.stop()
            copy_files(server.data_dir, copy_of(server))
            server.start()

    def restore(self, *kinds: type[Server]) -> None:
        for server in self._servers():
            if isinstance(server, kinds):
                server.stop()
                shutil.rmtree(server.data_dir)
                copy_files(copy_of(server), server.data_dir)
                server.start()
        self.producer = again(self.producer, self.settings)

    def empty_redis(self) -> None:
        with redis.Redis.from_url(self._redis.url) as client:
            client.flushall()
            client.script_flush()

    def forget_kept_results(self) -> None:
        """Delete what speaks of commands that a restored Postgres knows nothing of, as the guide says."""
        with redis.Redis.from_url(self._redis.url) as client:
            for key in client.scan_iter(match=f"{Keys().prefix}:*:result:*"):
                client.unlink(key)

    def _servers(self) -> list[Server]:
        return [self._postgres, self._redis]


def copy_of(server: Server) -> Path:
    return server.data_dir.with_name(f"{server.data_dir.name}-copy")


def copy_files(source: Path, target: Path) -> None:
    # With their owner, who need not be the user of the tests.
    subprocess.run(["/bin/cp", "-a", source, target], check=True)


def again(producer: Producer, settings: Settings) -> Producer:
    """Return the producer, started again with other settings."""
    started = Producer(settings)
    started.accepted = producer.accepted
    return started


def restore_postgres(stack: Stack) -> None:
    stack.restore(EmbeddedPostgres)
    stack.forget_kept_results()


def restore_redis(stack: Stack) -> None:
    stack.restore(EmbeddedRedis)


def empty_redis(stack: Stack) -> None:
    stack.empty_redis()


def restore_both(stack: Stack) -> None:
    stack.restore(EmbeddedPostgres, EmbeddedRedis)


#: What is restored, and what is there afterwards of: what was decided before the copy, what stood on the lanes then,
#: what came and was decided later, and what stands on the lanes when it is restored.
RESTORES = {
    "postgres": (restore_postgres, (True, False, False, True)),
    "redis": (restore_redis, (True, True, True, False)),
    "redis emptied": (empty_redis, (True, True, True, False)),
    "both": (restore_both, (True, True, False, False)),
}


@pytest.fixture
def stack(
    own_postgres: Callable[[], EmbeddedPostgres], own_redis: Callable[[], EmbeddedRedis], start_worker: StartWorker
) -> Stack:
    return Stack(own_postgres(), own_redis(), start_worker)


@pytest.mark.parametrize(("restore", "is_kept"), RESTORES.values(), ids=RESTORES)
def test_after_a_restore_the_lanes_flow_and_nothing_is_lost_but_what_the_guide_says(
    restore: Callable[[Stack], None], is_kept: tuple[bool, ...], stack: Stack
) -> None:
    # Given copies of both servers, and a ledger that has gone on since, with other owners of the lanes
    stack.producer.open_accounts()
    stack.producer.write(40)
    first = list(stack.producer.accepted)
    stack.work()
    standing = stack.send(40)
    stack.copy()
    stack.producer = again(stack.producer, stack.settings)
    later = []
    for _ in range(LATER_OWNERS):
        later += stack.send(20)
        stack.work()
    waiting = stack.send(40)
    # When all processes are stopped, something is restored, and they are started again
    restore(stack)
    workers = stack.start(workers=2)
    stack.history.wait_until_settled()
    # Then what is there is what the guide says, once and in order, and the books are right
    parts = zip((first, standing, later, waiting), is_kept, strict=True)
    kept = [command for part, is_part_kept in parts if is_part_kept for command in part]
    assert stack.history.effects() == in_order(kept)
    # And what was lost can be sent again, with one effect each
    sent = list(stack.producer.accepted)
    stack.producer.send(sent)
    stack.history.wait_until_settled()
    assert stack.history.effects() == in_order(kept + sent)
    assert verify(stack.settings.require_database_url()).failed == []
    # And no lane was read again and again
    assert not any(worker.has_logged("a lane is read again and again without progress") for worker in workers)
    assert not any(worker.has_ended for worker in workers)


def in_order(commands: Sequence[Command]) -> dict[str, list[object]]:
    return {account: sorted(effects) for account, effects in expected_effects(commands).items()}
