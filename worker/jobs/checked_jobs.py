"""RQ's job and queue, made so that nothing that stands in Redis decides which code runs.

A job that is not ours becomes one that says why it is refused, however broken it is: it has to be read to get to the
failed registry, and one that could not be read would stop the process each time it meets it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import redis
import structlog
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import JOB_ID_PATTERN, Job, JobStatus
from rq.serializers import JSONSerializer

from ...lanes.keys import Keys
from ...schemas.errors import JobRefused
from . import entrypoints

#: How large a job may be, unpacked, in bytes: a thousand events take 40,000.
MAX_DATA_BYTES = 262_144
#: How long a job that was refused stays in the failed registry, in seconds.
REFUSED_SECONDS = 30 * 86_400
#: How much of a text that anybody may have written is kept of a refused job, in characters.
MAX_TEXT_CHARACTERS = 200

#: What RQ keeps of a job and Creditlane's jobs use. Everything else is not read.
_FIELDS = (
    "created_at",
    "description",
    "ended_at",
    "enqueue_at_front",
    "enqueue_at_front_on_retry",
    "enqueued_at",
    "failure_ttl",
    "last_heartbeat",
    "meta",
    "number_of_retries",
    "origin",
    "result_ttl",
    "retries_left",
    "retry_intervals",
    "started_at",
    "status",
    "timeout",
    "ttl",
    "worker_name",
)
#: What lets RQ call, send or begin something else beside the job.
_UNUSED = {
    "success_callback_name": "a callback",
    "failure_callback_name": "a callback",
    "stopped_callback_name": "a callback",
    "webhooks": "a webhook of RQ's",
    "repeats_left": "repetitions",
    "rate_limit_key": "a rate limit",
    "dependency_id": "a dependency",
    "dependency_ids": "dependencies",
    "group_id": "a group",
}

_log = structlog.get_logger(__name__)


class CheckedJob(Job):
    """A job of RQ's, of which only what Creditlane's own jobs have is taken from Redis.

    RQ's callbacks and webhooks do not exist for it, and it is JSON, whatever serializer RQ asks for.
    """

    def __init__(self, id: str | None = None, connection: redis.Redis | None = None, serializer: Any = None) -> None:  # noqa: A002, ARG002  # RQ's signature
        super().__init__(id, connection, JSONSerializer)
        #: Why this job is none of ours; None: it is.
        self.refusal: str | None = None

    def refresh(self) -> None:
        """Read the job from Redis.

        Raises:
            NoSuchJobError: there is none, or what is there is no job, or none that this user of Redis may read.
        """
        try:
            super().refresh()  # type: ignore[no-untyped-call]  # RQ has no type for it
        except redis.ResponseError as error:
            if not is_somebody_elses(error):
                raise
            raise NoSuchJobError(f"{self.key} is no job") from None

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Take over what is ours of what stands in Redis, and note why the rest is refused."""
        fields = {name.decode(errors="replace"): value for name, value in raw_data.items()}
        if "data" not in fields:
            raise NoSuchJobError("a job without data")
        kept = {name.encode(): fields[name] for name in _FIELDS if name in fields}
        try:
            data = _unpacked(fields["data"])
            super().restore({**kept, b"data": zlib.compress(data)})
            self._check(fields)
        except JobRefused as error:
            self._refuse(error.message, raw_data)
        except Exception as error:  # noqa: BLE001  # whatever it is, it was written by somebody else
            self._refuse(f"it cannot be read: {type(error).__name__}", raw_data)

    def _check(self, fields: Mapping[str, bytes]) -> None:
        """Let a job pass that is one of ours.

        Raises:
            JobRefused: it is not.
        """
        for name, what in _UNUSED.items():
            if fields.get(name):
                raise JobRefused(f"it has {what}; Creditlane's jobs have none")
        if self._unreadable_meta is not None or not isinstance(self.meta, dict):
            raise JobRefused("its meta is no object")
        entrypoints.check_call(self.func_name, self.instance, self.args, self.kwargs)

    def _refuse(self, reason: str, raw_data: Mapping[bytes, bytes]) -> None:
        """Become a job that can do nothing but fail, under the name that was given as far as there was one."""
        try:
            data = _unpacked(raw_data[b"data"])
        except JobRefused:
            data = b"null"
        texts = {
            name: raw_data.get(name, b"").decode(errors="replace")[:MAX_TEXT_CHARACTERS].encode()
            for name in (b"description", b"origin")
        }
        # Everything that was read before is forgotten by this.
        super().restore({**texts, b"data": zlib.compress(data), b"failure_ttl": b"%d" % REFUSED_SECONDS})
        if raw_data.get(b"status") == JobStatus.STARTED.encode():
            # Only such a one is taken for abandoned.
            self._status = JobStatus.STARTED
        self._func_name, self._instance, self._args, self._kwargs = _name_in(data), None, (), {}
        self.refusal = reason

    def _execute(self) -> Any:
        """Do the job.

        Raises:
            JobRefused: it is not ours.
        """
        if self.refusal is not None:
            raise JobRefused(f"{JobRefused().message} {self.refusal}")
        call = entrypoints.call_of(self.func_name, self.instance, self.args, self.kwargs)
        return call.function(*call.arguments)

    @property
    def func(self) -> Any:
        """What the job calls: never what its name would import."""
        return entrypoints.call_of(self.func_name, self.instance, self.args, self.kwargs).function

    @property
    def success_callback(self) -> None:
        """Never anything."""

    @property
    def failure_callback(self) -> None:
        """Never anything."""

    @property
    def stopped_callback(self) -> None:
        """Never anything."""

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send nothing: the address would be anybody's."""


class CheckedQueue(Queue):
    """A queue of RQ's, of checked jobs only."""

    job_class: type[Job] = CheckedJob

    @classmethod
    def lmove(cls, connection: redis.Redis, queue_key: str, timeout: int | None) -> tuple[str, bytes] | None:
        """Take the next entry that can be a job of ours, and throw away those before it that cannot."""
        while (found := super().lmove(connection, queue_key, timeout)) is not None:
            _, entry = found
            if _may_be_read(connection, entry.decode(errors="replace")):
                return queue_key, entry
            IntermediateQueue(queue_key, connection).remove(entry)
            _count_refusal(connection, queue_key)
            _log.error("an entry of a queue is no job of ours and was thrown away", queue=queue_key, bytes=len(entry))
        return None


def is_somebody_elses(error: object) -> bool:
    """Return whether Redis has something else where a job should be, or what its user may not touch."""
    # Of what RQ sends as one, the message alone says it.
    return isinstance(error, redis.ResponseError) and ("WRONGTYPE" in str(error) or is_denied(error))


def is_denied(error: redis.ResponseError) -> bool:
    """Return whether the user of Redis may not do it, with this key or at all."""
    return isinstance(error, redis.exceptions.NoPermissionError) or "No permissions" in str(error)


def _may_be_read(connection: redis.Redis, identifier: str) -> bool:
    """Return whether it is the id of a job, and of one that this user of Redis may read, as those of our prefix."""
    if not JOB_ID_PATTERN.fullmatch(identifier):
        return False
    try:
        connection.exists(Job.key_for(identifier))
    except redis.ResponseError as error:
        if not is_denied(error):
            raise
        return False
    return True


def _count_refusal(connection: redis.Redis, queue_key: str) -> None:
    prefix, _, queue = queue_key.removeprefix(Queue.redis_queue_namespace_prefix).rpartition("-")
    connection.hincrby(Keys(prefix).refused_jobs, queue, 1)


def _unpacked(data: bytes) -> bytes:
    """Return the data of a job, as RQ packs it or not.

    Raises:
        JobRefused: it is larger than any of ours.
    """
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(data, MAX_DATA_BYTES + 1)
    except zlib.error:
        unpacked = data
    if len(unpacked) > MAX_DATA_BYTES:
        raise JobRefused(f"it has more than {MAX_DATA_BYTES:,} bytes")
    return unpacked


def _name_in(data: bytes) -> str:
    """Return the name of the function that the data has, to be shown; as much as can be read of it."""
    try:
        named = json.loads(data)[0]
    except Exception:  # noqa: BLE001  # anybody wrote it
        return "unreadable"
    return str(named)[:MAX_TEXT_CHARACTERS]
