"""Tells the news of a committed batch: results to producers, poll keys, and the lanes rid of what is decided.

In that order: a crash in between leads to a second announcement, never to none. Called after the commit only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import redis
import structlog

from ..schemas.errors import IdempotencyKeyMismatch
from ..schemas.journal import Announcement, encode_announcements
from ..schemas.keys import ANNOUNCEMENT_FIELD, Keys
from . import scripts
from .book import Verdict
from .requests import Batch, Request

#: Results in one message, so that a bound on messages is a bound on results too, about 200 bytes each.
MAX_RESULTS_PER_MESSAGE = 50
#: Messages that a producer may leave unread. What is trimmed is found in Postgres.
MAX_UNREAD_MESSAGES = 8_000
#: How long the news for a producer that reads nothing are kept, in seconds.
REPLY_TTL_SECONDS = 600
#: Poll keys written in one script call, so that no call keeps Redis busy for long.
MAX_KEPT_PER_CALL = 500

#: How Redis begins to say that a key holds something of another type.
_WRONG_TYPE = "WRONGTYPE"

_log = structlog.get_logger(__name__)


class Announcer:
    """Announces batches through one Redis client. Announcing twice is harmless."""

    def __init__(
        self, client: redis.Redis, keys: Keys, *, result_ttl_seconds: int, keep_all_results: bool = False
    ) -> None:
        self._client = client
        self._keys = keys
        self._result_ttl_seconds = result_ttl_seconds
        self._keep_all_results = keep_all_results
        self._delete_decided = client.register_script(scripts.DELETE_DECIDED)
        self._keep_results = client.register_script(scripts.KEEP_RESULTS)

    def announce(self, batch: Batch, verdicts: Sequence[Verdict], *, has_news: bool = False) -> None:
        """Send the verdicts to their producers, keep those that shall be kept, and wake who delivers news.

        Raises:
            redis.RedisError: Redis cannot be used now; announce again.
        """
        decided = list(zip(batch.requests, verdicts, strict=True))
        pipeline = self._client.pipeline(transaction=False)
        self._reply(pipeline, decided)
        self._keep(pipeline, decided)
        if has_news:
            # One element is enough to wake somebody up, and nobody may be there to take them off.
            pipeline.rpush(self._keys.wake_deliveries, 1)
            pipeline.ltrim(self._keys.wake_deliveries, 0, 0)
        for answer in pipeline.execute(raise_on_error=False):
            if isinstance(answer, redis.ResponseError) and str(answer).startswith(_WRONG_TYPE):
                # One producer's key is something else. It finds its results in Postgres; the others must not wait.
                _log.error("a result cannot be announced", error=str(answer))
            elif isinstance(answer, Exception):
                raise answer

    def delete(self, batch: Batch) -> set[int]:
        """Delete the batch's entries from their lanes. Returns the lanes that turned out to be another owner's.

        Raises:
            redis.RedisError: Redis cannot be used now; delete again.
        """
        last_entries = {request.partition: request.lane_entry for request in batch.requests}
        pipeline = self._client.pipeline(transaction=False)
        for partition, lane_entry in last_entries.items():
            self._delete_decided(
                keys=[self._keys.lane(partition), self._keys.fence(partition)],
                args=[batch.epochs[partition], _after(lane_entry)],
                client=pipeline,
            )
        answers = pipeline.execute()
        return {partition for partition, deleted in zip(last_entries, answers, strict=True) if deleted == -1}

    def _reply(self, pipeline: redis.client.Pipeline, decided: Iterable[tuple[Request, Verdict]]) -> None:
        replies: defaultdict[str, list[Announcement]] = defaultdict(list)
        for request, verdict in decided:
            if request.producer_id is not None:
                replies[request.producer_id].append(
                    Announcement(request.number, verdict.row, verdict.replayed, verdict.refusal)
                )
        for producer_id, news in replies.items():
            key = self._keys.replies(producer_id)
            for start in range(0, len(news), MAX_RESULTS_PER_MESSAGE):
                message = encode_announcements(news[start : start + MAX_RESULTS_PER_MESSAGE])
                pipeline.xadd(key, {ANNOUNCEMENT_FIELD: message}, maxlen=MAX_UNREAD_MESSAGES)
            pipeline.expire(key, REPLY_TTL_SECONDS)

    def _keep(self, pipeline: redis.client.Pipeline, decided: Iterable[tuple[Request, Verdict]]) -> None:
        kept: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
        for request, verdict in decided:
            command = request.command
            if command is None or not (request.keep or self._keep_all_results):
                continue
            # A poll key belongs to the request that holds the idempotency key, not to another that tried to use it.
            if verdict.refusal is None or verdict.refusal.code != IdempotencyKeyMismatch.code:
                key = self._keys.result(request.partition, command.store_id, command.idempotency_key)
                news = Announcement(0, verdict.row, verdict.replayed, verdict.refusal, request.lane_entry.decode())
                kept[request.partition].append((key, encode_announcements([news])))
        for results in kept.values():
            for start in range(0, len(results), MAX_KEPT_PER_CALL):
                part = results[start : start + MAX_KEPT_PER_CALL]
                self._keep_results(
                    keys=[key for key, _ in part],
                    args=[self._result_ttl_seconds, ANNOUNCEMENT_FIELD, *(value for _, value in part)],
                    client=pipeline,
                )


def _after(lane_entry: bytes) -> bytes:
    """Return the id that comes right after this one in a stream."""
    milliseconds, _, number = lane_entry.partition(b"-")
    return b"%b-%d" % (milliseconds, int(number) + 1)
