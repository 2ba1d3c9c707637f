"""A producer that knows what it did: it sends a random history, outlasts outages, and remembers what was accepted.

It writes to the lanes by itself, with nothing of `creditlane.producer`, so that a fault there hides none of the worker.
"""

import random
import threading
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import COMMAND_FIELD, REPLY_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Command, Credit, Debit, OpenAccount
from creditlane.schemas.settings import Settings

from .worker_processes import wait_for

#: What one call puts on the lanes, and how many seconds pass before the next while it writes in the background.
COMMANDS_PER_CALL = 5
PACE_SECONDS = 0.01
#: One in so many commands is an earlier one, sent again.
REPEAT_EVERY = 15
INITIAL_BALANCE = 100


class Producer:
    """Sends commands one call after the other. Number n of its announcements is `accepted[n - 1]`."""

    def __init__(self, settings: Settings, *, seed: int = 0, accounts: int = 12) -> None:
        assert settings.partitions is not None
        self.id = uuid.UUID(int=random.Random(seed).getrandbits(128)).hex
        self.accepted: list[Command] = []
        self.partitions = settings.partitions
        #: Calls that had to be made again.
        self.retries = 0
        self._random = random.Random(seed)
        self._store = settings.store
        self._keys = Keys(settings.redis_prefix)
        self._client = redis.Redis.from_url(settings.require_redis_url(), retry=Retry(NoBackoff(), 0), socket_timeout=5)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write_until_stopped)
        self.accounts = [f"cca_{self._random.getrandbits(128):032x}" for _ in range(accounts)]

    def __enter__(self) -> Self:
        """Write in the background until the block ends."""
        if not self.accepted:
            self.open_accounts()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def open_accounts(self) -> None:
        """Open every account, with an initial balance."""
        self.send(
            OpenAccount(
                account_id=account_id,
                customer_id=f"customer {account_id}",
                initial_balance=INITIAL_BALANCE,
                idempotency_key=f"open {account_id}",
            )
            for account_id in self.accounts
        )

    def write(self, count: int) -> None:
        """Send so many random commands."""
        self.send([self._random_command() for _ in range(count)])

    def send(self, commands: Iterable[Command]) -> None:
        """Send the commands in one call, again and again until every one of them is accepted."""
        commands = list(commands)
        wait_for(lambda: self._is_accepted(commands), "Redis accepting commands")
        self.accepted += commands

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more commands were accepted, while it writes in the background."""
        wanted = len(self.accepted) + count
        wait_for(lambda: len(self.accepted) >= wanted, f"{count} more commands")

    def _write_until_stopped(self) -> None:
        while not self._stopping.wait(PACE_SECONDS):
            self.write(COMMANDS_PER_CALL)

    def _is_accepted(self, commands: Sequence[Command]) -> bool:
        pipeline = self._client.pipeline(transaction=False)
        for number, command in enumerate(commands, len(self.accepted) + 1):
            fields = {COMMAND_FIELD: encode_command(command, self._store), REPLY_FIELD: f"{self.id}/{number}"}
            pipeline.xadd(self._keys.lane(partition_of(command.account_id, self.partitions)), fields)  # type: ignore[arg-type]
        try:
            pipeline.execute()
        except (redis.ConnectionError, redis.TimeoutError):
            # Some of them may stand on their lanes. Sent again as they were they have no second effect.
            self.retries += 1
            return False
        return True

    def _random_command(self) -> Command:
        choose = self._random
        if self.accepted and choose.randrange(REPEAT_EVERY) == 0:
            return choose.choice(self.accepted)
        kind = choose.choice((Credit, Debit, Debit))
        return kind(
            account_id=choose.choice(self.accounts),
            amount=choose.randint(1, 60),
            reference=f"request {choose.randrange(1000)}",
            idempotency_key=f"{self.id} {choose.getrandbits(64):x}",
        )
