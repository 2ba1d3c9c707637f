"""Announces a committed batch: results to producers, poll keys, and a hint to who delivers webhooks.

Before the lanes are rid of it: a crash in between leads to a second announcement, never to none. Called after the
commit only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import redis
import structlog

from ...lanes.keys import ANNOUNCEMENT_FIELD, VERSION_FIELD, Keys
from ...schemas.errors import IdempotencyKeyMismatch
from ...schemas.journal import ANNOUNCEMENT_VERSION, Announcement, Reply, encode_announcements
from ..ledger.state import Outcome
from . import scripts
from .entries import Batch, LaneEntry
from .redis_session import is_of_wrong_type, is_out_of_memory

#: Results in one message, so that a bound on messages is a bound on results too, about 200 bytes each.
MAX_RESULTS_PER_MESSAGE = 50
#: Bytes of one message, unless it holds a single result.
MAX_MESSAGE_BYTES = 65_536
#: Messages that a producer may leave unread. What is trimmed is found in Postgres.
MAX_UNREAD_MESSAGES = 8_000
#: Bytes that it may leave unread, about: of messages as long as the one that is added.
MAX_UNREAD_BYTES = 16_000_000
#: How long results are kept for a producer that reads nothing, in seconds.
REPLY_TTL_SECONDS = 600
#: How long the result of a dry run is kept, in seconds. It is kept unasked, since it stands nowhere else, so whoever
#: sends many of them would fill Redis for all.
DRY_RUN_TTL_SECONDS = 60
#: Longest result of a dry run that is kept unasked, in bytes: that of a transaction has all its entries.
MAX_UNASKED_DRY_RUN_BYTES = 4_096
#: Poll keys written in one script call, so that no call keeps Redis busy for long.
MAX_KEPT_PER_CALL = 500

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
        self._keep_results = client.register_script(scripts.KEEP_RESULTS)

    def announce(self, batch: Batch, outcomes: Sequence[Outcome], *, has_outbox_rows: bool = False) -> bool:
        """Send the outcomes to their producers, keep those that shall be kept, and wake who delivers webhooks.

        Returns False if Redis is out of memory and has not taken all of it.

        Raises:
            redis.RedisError: Redis cannot be used now; announce again.
        """
        decided = list(zip(batch.entries, outcomes, strict=True))
        pipeline = self._client.pipeline(transaction=False)
        self._reply(pipeline, decided)
        self._keep(pipeline, decided)
        if has_outbox_rows:
            # One element is enough to wake somebody up, and nobody may be there to take them off.
            pipeline.rpush(self._keys.wake_deliveries, 1)
            pipeline.ltrim(self._keys.wake_deliveries, 0, 0)
        taken = True
        for answer in pipeline.execute(raise_on_error=False):
            if is_out_of_memory(answer):
                taken = False
            elif is_of_wrong_type(answer):
                # One producer's key is something else. It finds its results in Postgres; the others must not wait.
                _log.error("a result cannot be announced", error=str(answer))
            elif isinstance(answer, Exception):
                raise answer
        return taken

    def drop_unread(self, batch: Batch) -> None:
        """Delete what the batch's producers have not read: Redis needs the room, and they find it in Postgres.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        producers = {entry.producer_id for entry in batch.entries if entry.producer_id is not None}
        pipeline = self._client.pipeline(transaction=False)
        for producer_id in producers:
            # Not deleted: what is added later must have higher ids than what was read.
            pipeline.xtrim(self._keys.replies(producer_id), maxlen=0, approximate=False)
        if producers:
            pipeline.execute(raise_on_error=False)

    def _reply(self, pipeline: redis.client.Pipeline, decided: Iterable[tuple[LaneEntry, Outcome]]) -> None:
        replies: defaultdict[str, list[Reply]] = defaultdict(list)
        for entry, outcome in decided:
            if entry.producer_id is not None:
                replies[entry.producer_id].append(
                    Reply(entry.number, outcome.row, outcome.replayed, outcome.refusal)
                    if not outcome.dry_run
                    else _dry_run_of(entry, outcome, entry.number)
                )
        for producer_id, results in replies.items():
            key = self._keys.replies(producer_id)
            for start in range(0, len(results), MAX_RESULTS_PER_MESSAGE):
                for message in _messages_of(results[start : start + MAX_RESULTS_PER_MESSAGE]):
                    unread = min(MAX_UNREAD_MESSAGES, MAX_UNREAD_BYTES // len(message))
                    pipeline.xadd(
                        key,
                        {ANNOUNCEMENT_FIELD: message, VERSION_FIELD: ANNOUNCEMENT_VERSION},
                        maxlen=max(1, unread),
                    )
            pipeline.expire(key, REPLY_TTL_SECONDS)

    def _keep(self, pipeline: redis.client.Pipeline, decided: Iterable[tuple[LaneEntry, Outcome]]) -> None:
        kept: defaultdict[tuple[int, int], list[tuple[str, bytes]]] = defaultdict(list)
        dry_run_ttl_seconds = min(self._result_ttl_seconds, DRY_RUN_TTL_SECONDS)
        if not self._keep_all_results:
            # What becomes of a dry run stands nowhere else.
            decided = [pair for pair in decided if pair[0].keep or pair[1].dry_run]
        for entry, outcome in decided:
            command = entry.command
            # The end of holds has no result of its own, which anybody could ask for.
            if command is None or (outcome.row is None and outcome.refusal is None):
                continue
            if command.dry_run:
                key = self._keys.dry_run_result(entry.partition, command.store_id, entry.entry_id.decode())
                encoded = encode_announcements([_dry_run_of(entry, outcome, 0)])
                if entry.keep or len(encoded) <= MAX_UNASKED_DRY_RUN_BYTES:
                    kept[entry.partition, dry_run_ttl_seconds].append((key, encoded))
                continue
            # A poll key belongs to the request that holds the idempotency key, not to another that tried to use it.
            if outcome.refusal is None or outcome.refusal.code != IdempotencyKeyMismatch.code:
                key = self._keys.result(entry.partition, command.store_id, command.idempotency_key)
                kept_result = Announcement(0, outcome.row, outcome.replayed, outcome.refusal, entry.entry_id.decode())
                encoded = encode_announcements([kept_result])
                kept[entry.partition, self._result_ttl_seconds].append((key, encoded))
        for (_, ttl_seconds), results in kept.items():
            settings = (ttl_seconds, ANNOUNCEMENT_FIELD, VERSION_FIELD, ANNOUNCEMENT_VERSION)
            for start in range(0, len(results), MAX_KEPT_PER_CALL):
                part = results[start : start + MAX_KEPT_PER_CALL]
                self._keep_results(
                    keys=[key for key, _ in part],
                    args=[*settings, *(value for _, value in part)],
                    client=pipeline,
                )


def _dry_run_of(entry: LaneEntry, outcome: Outcome, number: int) -> Announcement:
    """Return what is announced of a dry run."""
    return Announcement(
        number,
        outcome.row,
        outcome.replayed,
        outcome.refusal,
        entry.entry_id.decode(),
        dry_run=True,
        further=outcome.further,
    )


def _messages_of(results: list[Reply]) -> list[bytes]:
    """Return the results as one message, or as several where that would be too long."""
    message = encode_announcements(results)
    if len(message) <= MAX_MESSAGE_BYTES or len(results) == 1:
        return [message]
    half = len(results) // 2
    return _messages_of(results[:half]) + _messages_of(results[half:])
