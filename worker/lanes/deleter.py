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
from .entries import Batch, Request, parse_request
from .entry_ids import after
from .redis_session import is_of_wrong_type

#: Entries compared, or deleted by id, in one call, so that none keeps Redis busy for long and none brings in too much.
MAX_ENTRIES_PER_CALL = 100

#: For how long a lane counts as one that several stores use, in seconds: whose each command is, is then told at once.
#: Otherwise nobody looks, since that costs a twentieth of all that a worker does.
SEVERAL_STORES_SECONDS = 30.0

#: What the scripts answer: a later owner has the lane; its head is not what was decided; it must be told whose that is.
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
        lanes: defaultdict[int, list[Request]] = defaultdict(list)
        for partition, part in groupby(batch.requests, attrgetter("partition")):
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

    def _trim(self, lanes: Mapping[int, list[Request]], epochs: Mapping[int, int]) -> dict[int, int]:
        answers = self._trim_heads(lanes, epochs)
        several = {partition: lanes[partition] for partition, answer in answers.items() if answer == _SEVERAL_STORES}
        if several:
            self._several_until |= dict.fromkeys(several, time.monotonic() + SEVERAL_STORES_SECONDS)
            answers |= self._trim_heads(several, epochs)
        return answers

    def _trim_heads(self, lanes: Mapping[int, list[Request]], epochs: Mapping[int, int]) -> dict[int, int]:
        now = time.monotonic()
        pipeline = self._client.pipeline(transaction=False)
        for partition, requests in lanes.items():
            first, last = requests[0], requests[-1]
            self._delete_head(
                keys=self._keys_of(partition),
                args=[
                    *(epochs[partition], first.lane_entry, last.lane_entry, last.payload, after(last.lane_entry)),
                    *(_counts_by_store(requests) if self._several_until.get(partition, 0.0) > now else ()),
                ],
                client=pipeline,
            )
        answers = pipeline.execute(raise_on_error=False)
        return {partition: _answer(partition, answer) for partition, answer in zip(lanes, answers, strict=True)}

    def _delete_by_id(self, partition: int, requests: list[Request], epoch: int) -> int:
        """Delete entries between which others stand, which were not read with them."""
        keys = self._keys_of(partition)
        pipeline = self._client.pipeline(transaction=False)
        for start in range(0, len(requests), MAX_ENTRIES_PER_CALL):
            part = _each(requests[start : start + MAX_ENTRIES_PER_CALL])
            self._delete_entries(keys=keys, args=[epoch, *part], client=pipeline)
        return min([_answer(partition, answer) for answer in pipeline.execute(raise_on_error=False)])

    def _delete_compared(self, partition: int, requests: list[Request], epoch: int, *, has_gaps: bool) -> int:
        """Delete those entries that are still what was decided, by their ids."""
        keys = self._keys_of(partition)
        deleted = others = 0
        try:
            for entries in self._entries_between(partition, requests[0], requests[-1]):
                standing = _decided_among(entries, requests)
                others += 0 if has_gaps else len(entries) - len(standing)
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

    def _entries_between(self, partition: int, first: Request, last: Request) -> Iterator[list[StreamEntry]]:
        """Yield what the lane has between these two, call by call."""
        start = first.lane_entry
        while True:
            entries: list[StreamEntry] = self._client.execute_command(  # type: ignore[no-untyped-call]
                "XRANGE", self._keys.lane(partition), start, last.lane_entry, "COUNT", MAX_ENTRIES_PER_CALL
            )
            yield entries
            if len(entries) < MAX_ENTRIES_PER_CALL:
                return
            start = after(entries[-1][0])


def _decided_among(entries: Iterable[StreamEntry], requests: Iterable[Request]) -> list[Request]:
    """Return those requests that stand among the entries as they were decided, to the last field."""
    decided = {request.lane_entry: request for request in requests}
    return [
        decided[entry]
        for entry, fields in entries
        if entry in decided and parse_request(decided[entry].partition, entry, fields or []) == decided[entry]
    ]


def _store_of(request: Request) -> str:
    return NO_STORE if request.command is None else request.command.store_id


def _each(requests: Iterable[Request]) -> Iterator[str | bytes | int]:
    """Yield of each request what DELETE_ENTRIES wants to know."""
    for request in requests:
        yield from (request.lane_entry, _store_of(request), len(request.payload))


def _counts_by_store(requests: list[Request]) -> Iterator[str | int]:
    """Yield of each store that has some of the requests what DELETE_HEAD wants to know."""
    lengths: defaultdict[str, list[int]] = defaultdict(list)
    for request in requests:
        lengths[_store_of(request)].append(len(request.payload))
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
