"""The lease keeper: shows life, takes a fair share of the partitions, and gives up what is more than that.

Leases live in Postgres. Each has an epoch that grows with every change of owner and that every batch transaction locks
and compares, so a process that was paused past its lease cannot commit. Times are Postgres's, never this machine's.
"""

from __future__ import annotations

import math
import os
import socket
from threading import Event
from typing import Any

import psycopg
import structlog

from . import sql
from .backoff import Backoff
from .connecting import connect_postgres, session_name
from .counting import Counting
from .ownership import Ownership

#: How often a lease is renewed while it lasts.
RENEWALS_PER_LEASE = 5

_log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Keeps one worker's leases, in a thread of its own with a connection of its own."""

    def __init__(
        self,
        database_url: str,
        worker_id: str,
        ownership: Ownership,
        counting: Counting,
        stopping: Event,
        *,
        lease_seconds: float,
    ) -> None:
        self._database_url = database_url
        self._worker_id = worker_id
        self._ownership = ownership
        self._counting = counting
        self._stopping = stopping
        self._lease_seconds = lease_seconds
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def run(self) -> None:
        """Keep the leases until the worker is stopping."""
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                self._tick()
                if backoff.failures:
                    _log.info("leases are renewed again", failures=backoff.failures)
                    backoff.reset()
                self._stopping.wait(self._lease_seconds / RENEWALS_PER_LEASE)
            except psycopg.Error as error:
                _log.warning(
                    "leases cannot be renewed, trying again", error=str(error).strip(), failures=backoff.failures
                )
                self._disconnect()
                backoff.pause()

    def leave(self) -> None:
        """Give everything back, so that others need not wait for the leases to run out."""
        held = self._ownership.current()
        self._ownership.replace({})
        try:
            self._release(list(held))
            self._connected().execute(sql.FORGET_WORKERS, {"worker_id": self._worker_id})
        except psycopg.Error as error:
            _log.warning("leases could not be given back; they run out by themselves", error=str(error).strip())
        self._disconnect()

    def _tick(self) -> None:
        connection = self._connected()
        connection.execute(
            sql.HEARTBEAT,
            {
                "worker_id": self._worker_id,
                "host": socket.gethostname(),
                "process_id": os.getpid(),
                "lease_seconds": self._lease_seconds,
                "numbers": self._counting.encoded(),
            },
        )
        record = connection.execute(sql.READ_SHARES, {"worker_id": self._worker_id}).fetchone()
        if record is None:
            return
        partitions, held_pairs, alive = record
        held = dict(held_pairs)
        fair_share = math.ceil(partitions / max(alive, 1))
        if len(held) > fair_share:
            held = self._give_up(held, len(held) - fair_share)
        elif len(held) < fair_share:
            held |= self._take(fair_share - len(held))
        gained, lost = self._ownership.replace(held)
        if gained or lost:
            self._counting.note_lanes(len(gained), len(lost))
            _log.info("partitions changed", owned=len(held), gained=sorted(gained), lost=sorted(lost), workers=alive)

    def _take(self, wanted: int) -> dict[int, int]:
        """Take up to so many partitions that are free; those that a dead owner has locked are free at the next tick."""
        connection = self._connected()
        taken = connection.execute(sql.TAKE_LEASES, {"worker_id": self._worker_id, "wanted": wanted}).fetchall()
        if len(taken) < wanted:
            silent = [worker_id for (worker_id,) in connection.execute(sql.FIND_SILENT_OWNERS)]
            if silent:
                _log.warning("ending the sessions of workers that show no life", workers=silent)
                connection.execute(sql.END_SESSIONS, {"names": [session_name(worker_id) for worker_id in silent]})
        return dict(taken)

    def _give_up(self, held: dict[int, int], surplus: int) -> dict[int, int]:
        """Release the highest partitions, once what was read of them is done with."""
        kept = dict(sorted(held.items())[: len(held) - surplus])
        released = held.keys() - kept.keys()
        self._counting.note_lanes(0, len(released))
        self._ownership.replace(kept)
        _log.info("giving up partitions", owned=len(kept), lost=sorted(released))
        # Not finishing in time is no danger: the new epoch keeps what is under way from being committed.
        self._ownership.wait_until_finished(released, self._lease_seconds / RENEWALS_PER_LEASE)
        self._release(list(released))
        return kept

    def _release(self, partitions: list[int]) -> None:
        if partitions:
            self._connected().execute(sql.RELEASE_LEASES, {"worker_id": self._worker_id, "partitions": partitions})

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_postgres(self._database_url, autocommit=True)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
