"""Has holds released that have ended, where nothing else happens on their accounts: it puts commands on their lanes.

Every command of an account releases what has ended there before it is decided, so who asks finds it released, and this
is for the accounts that nobody asks anything of. Any number of processes look; one at a time puts. What was put twice,
since a process died or another one looked, does nothing the second time.

However many end at once, only `MAX_WAITING` wait on the lanes, all lanes together: more are put as those are released.
So what callers send never stands behind more of them than that.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import redis
import structlog

from ...lanes.encoding import encode_command
from ...lanes.keys import Keys
from ...lanes.routing import partition_of
from ...lanes.scripts import ENQUEUE_KEYS, ENQUEUE_SCRIPT, LaneLimits, enqueue_header
from ...schemas.commands import Expiry
from ...schemas.fair_shares import SHARE_OF_FREE
from ...schemas.identifiers import ACCOUNT_PREFIX
from ...schemas.installation import READ_INSTALLATION
from ...schemas.settings import Settings
from ...schemas.statuses import HoldStatus
from .database import Connection

#: Most holds that wait on the lanes to be released, of what one process has put: about a tenth of a second of a worker.
MAX_WAITING = 1_000
#: How long one that was put is waited for before others are put in its place, and it perhaps again, in seconds.
WAIT_SECONDS = 30.0
#: How long one call goes on with what has ended, and how often it looks whether some are released, in seconds.
CALL_SECONDS = 1.0
LOOK_SECONDS = 0.05

#: Any number that nothing else uses: of several processes, one at a time puts them.
_LOCK = 7_306_011_903
TAKE_LOCK = "select pg_try_advisory_xact_lock(%(lock)s)"

#: The time of the statement, not of each row: with that no index could be used. The one on ends is of the holds with
#: something remaining, which are the open ones.
READ_ENDED = """
select expires_at, store_id, account_id, seq,
       (select public_id from stores where stores.store_id = holds.store_id)
from holds
where remaining > 0 and expires_at <= statement_timestamp()
  and (expires_at, store_id, account_id, seq)
      > (%(expires_at)s::timestamptz, %(store_id)s, %(account_id)s::uuid, %(seq)s)
order by expires_at, store_id, account_id, seq limit %(limit)s
"""

#: Which of these are open still.
READ_OPEN = f"""
select store_id, account_id, seq from holds
join unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(seqs)s::bigint[]) as put (store_id, account_id, seq)
using (store_id, account_id, seq)
where status = {HoldStatus.OPEN:d}
"""  # noqa: S608

_log = structlog.get_logger(__name__)

#: A hold: its store, its account and its number.
_Hold = tuple[int, UUID, int]
#: What one store has on one lane: the lane's number, and the store.
_Queue = tuple[int, str]


class _Ended(NamedTuple):
    expires_at: datetime
    store_id: int
    account_id: UUID
    seq: int
    public_store_id: str

    @property
    def hold(self) -> _Hold:
        return self.store_id, self.account_id, self.seq


#: Before every one.
_BEFORE_ALL = _Ended(datetime.min.replace(tzinfo=UTC), 0, UUID(int=0), 0, "")


class EndedHolds:
    """What has ended and is not released, and the way to the lanes."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._limits = LaneLimits(settings.lane_limit, settings.lane_bytes, SHARE_OF_FREE)
        self._keys = Keys(settings.redis_prefix)
        self._stopping = stopping
        self._partitions = 0
        #: Those that were put on lanes, and when, by `time.monotonic`.
        self._waiting: dict[_Hold, float] = {}
        #: Up to where was read. Behind the last one it begins again, so that a lane that stands keeps up no other.
        self._after = _BEFORE_ALL

    def put_on_lanes(self, connection: Connection, client: redis.Redis) -> int:
        """Have released what has ended, for as long as there is more and a call goes on. Returns how many were put."""
        count, until = 0, time.monotonic() + CALL_SECONDS
        while True:
            self._forget_released(connection)
            put, is_end = self._put_some(connection, client)
            count += put
            if (is_end and not put) or time.monotonic() > until or self._stopping.wait(LOOK_SECONDS):
                return count

    def _put_some(self, connection: Connection, client: redis.Redis) -> tuple[int, bool]:
        """Put as many as there is room for. Returns how many that were, and whether all that has ended was seen."""
        room = MAX_WAITING - len(self._waiting)
        if room <= 0:
            return 0, False
        with connection.transaction():
            if not (connection.execute(TAKE_LOCK, {"lock": _LOCK}).fetchone() or (False,))[0]:
                return 0, True
            ended = self._read(connection, room)
            new = [one for one in ended if one.hold not in self._waiting]
            put = self._put(connection, client, new) if new else []
        now = time.monotonic()
        self._waiting.update((one.hold, now) for one in put)
        is_end = len(ended) < room
        self._after = _BEFORE_ALL if is_end else ended[-1]
        return len(put), is_end

    def _read(self, connection: Connection, limit: int) -> list[_Ended]:
        values = dict(zip(("expires_at", "store_id", "account_id", "seq"), self._after, strict=False))
        return [_Ended(*record) for record in connection.execute(READ_ENDED, {**values, "limit": limit}).fetchall()]

    def _forget_released(self, connection: Connection) -> None:
        """Forget those that are not open any more, and those that were waited for too long."""
        if not self._waiting:
            return
        stores, accounts, seqs = zip(*self._waiting, strict=True)
        values = {"stores": list(stores), "accounts": list(accounts), "seqs": list(seqs)}
        still_open = set(connection.execute(READ_OPEN, values).fetchall())
        since = time.monotonic() - WAIT_SECONDS
        self._waiting = {hold: at for hold, at in self._waiting.items() if hold in still_open and at > since}

    def _put(self, connection: Connection, client: redis.Redis, ended: Sequence[_Ended]) -> list[_Ended]:
        """Put a command for each account on its lane, and return the holds of those that were put."""
        if not self._partitions:
            self._partitions = (connection.execute(READ_INSTALLATION).fetchone() or ("", 0))[1]
        queues: dict[_Queue, dict[UUID, list[_Ended]]] = {}
        for one in ended:
            partition = partition_of(ACCOUNT_PREFIX + one.account_id.hex, self._partitions)
            queue = queues.setdefault((partition, one.public_store_id), defaultdict(list))
            queue[one.account_id].append(one)
        pipeline = client.pipeline(transaction=False)
        for (partition, store), of_accounts in queues.items():
            # Nobody waits for their results, so they have no numbers.
            numbered = [part for holds in of_accounts.values() for part in (0, _command(store, holds))]
            header = enqueue_header(self._keys, partition, self._limits, store, first_that_fit=True)
            pipeline.eval(ENQUEUE_SCRIPT, ENQUEUE_KEYS, *header, *numbered)
        # What is no list of new entries says what the lane has no room for.
        counts = [len(answer) if isinstance(answer, list) else 0 for answer in pipeline.execute()]
        if full := sum(count < len(queue) for count, queue in zip(counts, queues.values(), strict=True)):
            _log.warning("lanes are full, holds that have ended wait", lanes=full)
        put = [islice(queue.values(), count) for count, queue in zip(counts, queues.values(), strict=True)]
        return [one for of_queue in put for holds in of_queue for one in holds]


def _command(store: str, holds: Iterable[_Ended]) -> bytes:
    of_account = list(holds)
    expiry = Expiry(account_id=ACCOUNT_PREFIX + of_account[0].account_id.hex, holds=len(of_account))
    return encode_command(expiry, store)
