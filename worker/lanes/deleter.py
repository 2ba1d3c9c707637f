"""Rids the lanes of what is decided, and of nothing else. Called after the commit only.

The head of a lane is trimmed where it is certain that it is what was decided. Where a connection has ended since the
batch was read, Redis may be another that lost its tail and gives out the same ids, or lower ones, to new commands: then
each entry is compared with what was decided before it is deleted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter

import redis
import structlog

from ...lanes.backlog import NO_STORE
from ...lanes.keys import Keys
from . import scripts
from .entries import Batch, LaneEntry, parse_entry
from .entry_ids import after
from .redis_session import is_of_wrong_type

#: Entries compared, or deleted by id, in one call, so that none keeps Redis busy for long and none brings in too much.
MAX_ENTRIES_PER_CALL = 100

#: For how long a lane counts as one that several stores use, in seconds: whose each command is, is then sent
#: along at once. Otherwise nobody looks, since that costs a twentieth of all that a worker does.
SEVERAL_STORES_SECONDS = 30.0

#: What the scripts answer: a later owner has the lane; its head is not what was decided; it must know whose that is.
_FENCED = -1
_OTHER_HEAD = -2
_SEVERAL_STORES = -3

#: The id of an entry, and its fields with their values as they were sent.
StreamEntry = tuple[bytes, list[bytes]]

_log = structlog.get_logger(__name__)


class Deleter:
    """Deletes batches from their lanes through one Redis client. Deleting twice is harmless."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        #: Lanes that several stores use, and until when that counts.
        self._several_until: dict[int, float] = {}
        self._delete_head = client.register_script(scripts.DELETE_HEAD)
        self._delete_entries = client.register_script(scripts.DELETE_ENTRIES)

    def delete(self, batch: Batch, *, same_redis: bool) -> set[int]:
        """Delete the batch's entries from their lanes. Returns the lanes that turned out to be another owner's.

        `same_redis` says that no connection has ended since the batch was read.

        Raises:
            redis.RedisError: Redis cannot be used now; delete again.
        """
        lanes: defaultdict[int, list[LaneEntry]] = defaultdict(list)
        for partition, part in groupby(batch.entries, attrgetter("partition")):
            # A lane may have been read in several goes.
            lanes[partition] += part
        answers = dict.fromkeys(lanes, _OTHER_HEAD)
        if same_redis:
            answers |= self._trim({p: part for p, part in lanes.items() if p not in batch.gaps}, batch.epochs)
        for partition in [partition for partition, answer in answers.items() if answer == _OTHER_HEAD]:
            if same_redis and partition in batch.gaps:
                answers[partition] = self._delete_by_id(partition, lanes[partition], batch.epochs[partition])
            else:
                answers[partition] = self._delete_compared(
                    partition, lanes[partition], batch.epochs[partition], has_gaps=partition in batch.gaps
                )
        return {partition for partition, answer in answers.items() if answer == _FENCED}

    def _keys_of(self, partition: int) -> list[str]:
        return [self._keys.lane(partition), self._keys.fence(partition), self._keys.backlog(partition)]

    def _trim(self, lanes: Mapping[int, list[LaneEntry]], epochs: Mapping[int, int]) -> dict[int, int]:
        answers = self._trim_heads(lanes, epochs)
        several = {partition: lanes[partition] for partition, answer in answers.items() if answer == _SEVERAL_STORES}
        if several:
            self._several_until |= dict.fromkeys(several, time.monotonic() + SEVERAL_STORES_SECONDS)
            answers |= self._trim_heads(several, epochs)
        return answers

    def _trim_heads(self, lanes: Mapping[int, list[LaneEntry]], epochs: Mapping[int, int]) -> dict[int, int]:
        now = time.monotonic()
        pipeline = self._client.pipeline(transaction=False)
        for partition, entries in lanes.items():
            first, last = entries[0], entries[-1]
            self._delete_head(
                keys=self._keys_of(partition),
                args=[
                    *(epochs[partition], first.entry_id, last.entry_id, last.payload, after(last.entry_id)),
                    *(_counts_by_store(entries) if self._several_until.get(partition, 0.0) > now else ()),
                ],
                client=pipeline,
            )
        answers = pipeline.execute(raise_on_error=False)
        return {partition: _answer(partition, answer) for partition, answer in zip(lanes, answers, strict=True)}

    def _delete_by_id(self, partition: int, entries: list[LaneEntry], epoch: int) -> int:
        """Delete entries between which others stand, which were not read with them."""
        keys = self._keys_of(partition)
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(entries), MAX_ENTRIES_PER_CALL):
            part = _each(entries[start : start + MAX_ENTRIES_PER_CALL])
            self._delete_entries(keys=keys, args=[epoch, *part], client=pipeline)
        return min([_answer(partition, answer) for answer in pipeline.execute(raise_on_error=False)])

    def _delete_compared(self, partition: int, entries: list[LaneEntry], epoch: int, *, has_gaps: bool) -> int:
        """Delete those entries that are still what was decided, by their ids."""
        keys = self._keys_of(partition)
        deleted = others = 0
        try:
            for raw in self._entries_between(partition, entries[0], entries[-1]):
                standing = _decided_among(raw, entries)
                others += 0 if has_gaps else len(raw) - len(standing)
                if standing:
                    answer = int(self._delete_entries(keys=keys, args=[epoch, *_each(standing)]))
                    if answer == _FENCED:
                        return _FENCED
                    deleted += answer
        except redis.ResponseError as error:
            return _answer(partition, error)
        if others:
            _log.warning("Redis has given out ids again, keeping what is new", partition=partition, entries=others)
        return deleted

    def _entries_between(self, partition: int, first: LaneEntry, last: LaneEntry) -> Iterator[list[StreamEntry]]:
        """Yield what the lane has between these two, call by call."""
        start = first.entry_id
        while True:
            raw: list[StreamEntry] = self._client.execute_command(  # type: ignore[no-untyped-call]
                "XRANGE", self._keys.lane(partition), start, last.entry_id, "COUNT", MAX_ENTRIES_PER_CALL
            )
            yield raw
            if len(raw) < MAX_ENTRIES_PER_CALL:
                return
            start = after(raw[-1][0])


def _decided_among(raw: Iterable[StreamEntry], entries: Iterable[LaneEntry]) -> list[LaneEntry]:
    """Return those entries that stand on the lane as they were decided, to the last field."""
    decided = {entry.entry_id: entry for entry in entries}
    return [
        decided[entry_id]
        for entry_id, fields in raw
        if entry_id in decided and parse_entry(decided[entry_id].partition, entry_id, fields or []) == decided[entry_id]
    ]


def _store_of(entry: LaneEntry) -> str:
    return NO_STORE if entry.command is None else entry.command.store_id


def _each(entries: Iterable[LaneEntry]) -> Iterator[str | bytes | int]:
    """Yield of each entry what DELETE_ENTRIES wants to know."""
    for entry in entries:
        yield from (entry.entry_id, _store_of(entry), len(entry.payload))


def _counts_by_store(entries: list[LaneEntry]) -> Iterator[str | int]:
    """Yield of each store that has some of the entries what DELETE_HEAD wants to know."""
    lengths: defaultdict[str, list[int]] = defaultdict(list)
    for entry in entries:
        lengths[_store_of(entry)].append(len(entry.payload))
    for store, of_store in lengths.items():
        yield from (store, len(of_store), sum(of_store))


def _answer(partition: int, answer: object) -> int:
    """Return what a script answered; raise what says that Redis cannot be used."""
    if is_of_wrong_type(answer):
        # Nothing of a lane is left to delete where its key is something else. The reader says so.
        _log.error("a lane cannot be rid of what is decided", partition=partition, error=str(answer))
        return 0
    if isinstance(answer, Exception):
        raise answer
    return int(str(answer))
