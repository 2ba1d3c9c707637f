"""The fences of the lanes this process owns: raised before a lane is read, and never in an owner's way.

Its lease in Postgres alone says who owns a lane. The fence in Redis only keeps an owner of before from deleting,
so an owner passes it: where it stands above the epoch, because Postgres was restored to an earlier state, the lease
gets an epoch above the fence; where it is nothing that an owner may have written, it is named and overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import psycopg
import redis
import structlog

from ...lanes.keys import Keys
from ...lanes.postgres.errors import error_text
from ..connections import connect_postgres
from ..store import sql
from . import scripts
from .ownership import Ownership
from .redis_session import is_out_of_memory

#: How far above the epoch a fence can stand that an owner has written: more changes of owner than there ever are.
MAX_EPOCH_LEAP = 1_000_000_000
#: What fits a bigint, in digits.
MAX_EPOCH_DIGITS = 18
#: How long to wait before a fence is raised again that could not be, in seconds.
RETRY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class EpochRaiser:
    """Gives this worker's leases epochs above fences, over a connection that is made for it: it is rarely needed."""

    def __init__(self, database_url: str, worker_id: str, ownership: Ownership, *, answer_seconds: float) -> None:
        self._database_url = database_url
        self._worker_id = worker_id
        self._ownership = ownership
        self._answer_seconds = answer_seconds

    def raise_above(self, fences: Mapping[int, int], epochs: Mapping[int, int]) -> None:
        """Own the lanes under epochs above the fences; those that are another worker's are lost.

        Raises:
            psycopg.Error: Postgres cannot be used now; nothing has changed.
        """
        partitions = list(fences)
        with connect_postgres(
            self._database_url, worker_id=self._worker_id, autocommit=True, silence_seconds=self._answer_seconds
        ) as connection:
            raised: dict[int, int] = dict(
                connection.execute(
                    sql.RAISE_EPOCHS,
                    {"worker_id": self._worker_id, "partitions": partitions, "fences": list(fences.values())},
                ).fetchall()
            )
        self._ownership.move(raised)
        self._ownership.lose(fences.keys() - raised.keys(), epochs)
        _log.warning("fences stood above the leases, as after a restore of Postgres; epochs raised", epochs=raised)


class Fences:
    """Raises the fences through one Redis client."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        raiser: EpochRaiser,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._keys = keys
        self._raiser = raiser
        self._clock = clock
        self._raise_fence = client.register_script(scripts.RAISE_FENCE)
        #: (partition, epoch) of what is raised, or not to be tried before the moment beside it.
        self._raised: set[tuple[int, int]] = set()
        self._refused: dict[tuple[int, int], float] = {}
        #: Those that a fence in the way has stopped, as far as the raiser could do nothing.
        self._stopped: set[tuple[int, int]] = set()

    def forget(self) -> None:
        """Forget what was raised: Redis may have lost it."""
        self._raised.clear()
        self._refused.clear()
        self._stopped.clear()

    def raise_for(self, epochs: Mapping[int, int]) -> set[int]:
        """Raise the fences of lanes that are new. Returns the lanes that may not be read under these epochs.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        owned = set(epochs.items())
        if owned == self._raised:
            return set()
        self._raised &= owned
        self._stopped &= owned
        now = self._clock()
        self._refused = {lane: until for lane, until in self._refused.items() if lane in owned and until > now}
        wanted = owned - self._raised - self._refused.keys()
        if wanted:
            self._stopped -= wanted
            self._raise(dict(wanted))
        return {partition for partition, _ in self._stopped}

    def _raise(self, epochs: dict[int, int]) -> None:
        later = self._clock() + RETRY_SECONDS
        standing = self._standing(epochs, {})
        forged = {p: text for p, text in standing.items() if text is not None and _is_forged(text, epochs[p])}
        if forged:
            self._name(forged, epochs)
            standing |= self._standing({partition: epochs[partition] for partition in forged}, forged)
        above: dict[int, int] = {}
        for partition, text in standing.items():
            lane = partition, epochs[partition]
            if text is None or _is_forged(text, lane[1]):
                # It keeps others from deleting, and nobody from reading. To read is what frees memory in the end.
                self._refused[lane] = later
            elif int(text) > lane[1]:
                above[partition] = int(text)
            else:
                self._raised.add(lane)
        if above:
            self._pass(above, epochs, later)

    def _standing(self, epochs: Mapping[int, int], passed: Mapping[int, bytes]) -> dict[int, bytes | None]:
        """Return what stands in the fences once they are raised; None where Redis has no memory for it."""
        pipeline = self._client.pipeline(transaction=False)
        for partition, epoch in epochs.items():
            self._raise_fence(
                keys=[self._keys.fence(partition)], args=[epoch, passed.get(partition, b"")], client=pipeline
            )
        standing: dict[int, bytes | None] = {}
        for partition, answer in zip(epochs, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(answer, Exception) and not is_out_of_memory(answer):
                raise answer
            standing[partition] = None if isinstance(answer, Exception) else answer
        return standing

    def _name(self, forged: Mapping[int, bytes], epochs: Mapping[int, int]) -> None:
        for partition, text in forged.items():
            _log.error(
                "a fence is nothing that a worker has written, overwriting it",
                key=self._keys.fence(partition),
                standing=text[:100].decode(errors="replace"),
                epoch=epochs[partition],
            )

    def _pass(self, above: dict[int, int], epochs: Mapping[int, int], later: float) -> None:
        # Under these epochs they are not read any more: a batch of them could be committed, but never deleted.
        lanes = {(partition, epochs[partition]) for partition in above}
        self._stopped |= lanes
        self._refused |= dict.fromkeys(lanes, later)
        try:
            self._raiser.raise_above(above, epochs)
        except psycopg.Error as error:
            _log.warning(
                "fences stand above the leases, and the epochs cannot be raised yet, trying again",
                partitions=sorted(above),
                error=error_text(error),
            )


def _is_forged(standing: bytes, epoch: int) -> bool:
    """Return whether it is nothing that an owner can have written."""
    if not standing.isdigit() or len(standing) > MAX_EPOCH_DIGITS:
        return True
    return int(standing) > epoch + MAX_EPOCH_LEAP
