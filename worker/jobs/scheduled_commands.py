"""Puts commands on their lanes when they are due. Any number of processes check; one at a time puts.

A command that was put twice, since a process died in between, has one effect: its idempotency key is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis
import structlog

from ...lanes.keys import Keys
from ...lanes.routing import partition_of
from ...lanes.scripts import ENQUEUE_KEYS, ENQUEUE_SCRIPT, LaneLimits, enqueue_header
from ...schemas.fair_shares import SHARE_OF_FREE
from ...schemas.identifiers import ACCOUNT_PREFIX
from ...schemas.installation import READ_INSTALLATION
from ...schemas.settings import Settings
from .database import Connection

#: Most commands that are put in one transaction.
SLICE_COMMANDS = 1_000

#: Any number that nothing else uses: of several processes, one at a time puts commands, so that those of an account
#: come in the order in which they are due.
_LOCK = 7_306_011_902

#: The time of the statement, not of each row: with that no index could be used.
IS_ANY_DUE = "select exists (select from due_commands where enqueued_at is null and due_at <= statement_timestamp())"

#: Where a command stands in the order of what is due: due time, creation, store, key.
_Position = tuple[datetime, datetime, int, str]
#: What one store has on one lane: the lane's number, and the store.
_Queue = tuple[int, str]
#: Before every one.
_BEFORE_ALL: _Position = (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), 0, "")

TAKE_LOCK = "select pg_try_advisory_xact_lock(%(lock)s)"

READ_DUE = """
select store_id, (select public_id from stores where stores.store_id = due_commands.store_id),
    idempotency_key, account_id, command, due_at, created_at
from due_commands
where enqueued_at is null and due_at <= statement_timestamp()
    and (due_at, created_at, store_id, idempotency_key)
        > (%(due_at)s::timestamptz, %(created_at)s::timestamptz, %(store_id)s, %(key)s)
order by due_at, created_at, store_id, idempotency_key limit %(limit)s
for update
"""

NOTE_ENQUEUED = """
update due_commands set enqueued_at = clock_timestamp()
from unnest(%(stores)s::integer[], %(keys)s::text[]) as done (store_id, idempotency_key)
where due_commands.store_id = done.store_id and due_commands.idempotency_key = done.idempotency_key
"""

_log = structlog.get_logger(__name__)


class _Due(NamedTuple):
    store_id: int
    public_store_id: str
    idempotency_key: str
    partition: int
    command: bytes
    position: _Position

    @property
    def queue(self) -> _Queue:
        """What may be full."""
        return self.partition, self.public_store_id


class DueCommands:
    """What is due, and the way to the lanes."""

    def __init__(self, settings: Settings) -> None:
        self._limits = LaneLimits(settings.lane_limit, settings.lane_bytes, SHARE_OF_FREE)
        self._keys = Keys(settings.redis_prefix)
        self._partitions = 0

    def put_on_lanes(self, connection: Connection, client: redis.Redis) -> int:
        """Put all that is due on its lanes and return how much that was. What meets a full lane waits for later.

        A lane is full for one store, which has its share of it, before it is full for all.
        """
        if not _scalar(connection.execute(IS_ANY_DUE).fetchone()):
            return 0
        count, after, full = 0, _BEFORE_ALL, set[_Queue]()
        while True:
            with connection.transaction():
                if not _scalar(connection.execute(TAKE_LOCK, {"lock": _LOCK}).fetchone()):
                    return count
                due = self._read(connection, after)
                put = self._put(client, [one for one in due if one.queue not in full])
                values = {"stores": [one.store_id for one in put], "keys": [one.idempotency_key for one in put]}
                connection.execute(NOTE_ENQUEUED, values)
            count += len(put)
            full |= {one.queue for one in set(due) - set(put)}
            if len(due) < SLICE_COMMANDS:
                break
            after = due[-1].position
        if full:
            _log.warning("lanes are full, due commands wait", lanes=len({partition for partition, _ in full}))
        return count

    def _read(self, connection: Connection, after: _Position) -> list[_Due]:
        values = dict(zip(("due_at", "created_at", "store_id", "key"), after, strict=True))
        rows = connection.execute(READ_DUE, {**values, "limit": SLICE_COMMANDS}).fetchall()
        if not self._partitions:
            self._partitions = (connection.execute(READ_INSTALLATION).fetchone() or ("", 0))[1]
        return [
            _Due(
                store_id,
                public_store_id,
                key,
                partition_of(ACCOUNT_PREFIX + account.hex, self._partitions),
                bytes(command),
                (due_at, created_at, store_id, key),
            )
            for store_id, public_store_id, key, account, command, due_at, created_at in rows
        ]

    def _put(self, client: redis.Redis, due: Sequence[_Due]) -> list[_Due]:
        """Put each store's commands on each lane in order and return those that were put."""
        queues: dict[_Queue, list[_Due]] = {}
        for one in due:
            queues.setdefault(one.queue, []).append(one)
        pipeline = client.pipeline(transaction=False)
        for (partition, store), commands in queues.items():
            # Nobody waits for their results, so they have no numbers.
            numbered = [part for one in commands for part in (0, one.command)]
            header = enqueue_header(self._keys, partition, self._limits, store, first_that_fit=True)
            pipeline.eval(ENQUEUE_SCRIPT, ENQUEUE_KEYS, *header, *numbered)
        answers = pipeline.execute()
        # What is no list of new entries says what the lane has no room for.
        counts = [len(answer) if isinstance(answer, list) else 0 for answer in answers]
        return [one for commands, count in zip(queues.values(), counts, strict=True) for one in commands[:count]]


def _scalar(row: tuple[Any, ...] | None) -> Any:
    return row[0] if row else None
