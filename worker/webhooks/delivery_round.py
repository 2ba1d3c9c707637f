"""A round of deliveries: a slice of time in which one process fans out, sends, and writes down how it went.

    outbox --fan-out--> deliveries --lease, refill--> at hand --concurrency, slots--> sent --results--> Postgres

It ends soon when there is nothing to do. Within it an endpoint that hangs holds one request and nothing else, and the
last part of a round begins nothing at endpoints that fail, so that they cannot hold up its end. A process that is
killed loses nothing: its leases run out, and what it had sent unrecorded is sent again under the same id.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import defaultdict, deque
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog

from ...lanes.postgres.errors import error_text
from ...schemas.events import public_event_id
from ...schemas.networks import network_rules
from ...schemas.settings import Settings, load_settings
from ...schemas.webhook_secrets import secret_keys
from ..connections import connect_postgres_async
from .attempt import AttemptClient
from .attempt_results import Results
from .concurrency import RequestClass, Slots
from .endpoint_leases import LEASE_SECONDS, Due, Endpoint, EndpointLeases
from .exhausted import enqueue_exhausted
from .fan_out import FanOut
from .shutdown import is_stopping
from .targets import TargetPolicy

#: How long a round goes on beginning requests at failing endpoints; as long again as a request may take, at others.
SLICE_SECONDS = 20.0
#: How long a round waits for more when there is nothing to do, in seconds.
IDLE_SECONDS = 0.5
#: How often results are written and more is asked for at least, in seconds, and how often the outbox is read.
STEP_SECONDS = 0.02
OUTBOX_SECONDS = 0.05
#: How often endpoints are looked for, in seconds: not at once for more, so that several processes share them.
TAKE_SECONDS = 0.1
#: How long Postgres may be silent, in seconds: to who sends, as long as its leases last; to the fan-out, longer than it
#: lets a statement take.
SENDING_SILENCE_SECONDS = LEASE_SECONDS
FAN_OUT_SILENCE_SECONDS = 75.0
#: Results that are written without waiting any longer.
MANY_RESULTS = 64

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_log = structlog.get_logger(__name__)


def deliver_round(settings: Settings | None = None) -> dict[str, int]:
    """Run one round and return what was done in it; without settings, those of the environment.

    Any number of processes may do so at once. When Postgres cannot be reached the round ends; a later one goes on.
    """
    chosen = settings or load_settings()
    results = Results()
    done = {"fanned_out": 0, "unfinished": 0}
    try:
        done = asyncio.run(_deliver(chosen, results))
    except psycopg.Error as error:
        # The waker makes another round while there is something to deliver.
        _log.warning("deliveries interrupted", error=error_text(error))
    if results.exhausted:
        enqueue_exhausted(chosen, results.exhausted)
    return {**done, "delivered": results.delivered, "failed": results.failed}


async def _deliver(settings: Settings, results: Results) -> dict[str, int]:
    sender_id = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
    policy, keys = TargetPolicy(network_rules(settings)), secret_keys(settings)
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                await connect_postgres_async(
                    settings.require_database_url(), sender_id=sender_id, autocommit=True, silence_seconds=silence
                )
            )
            for silence in (SENDING_SILENCE_SECONDS, FAN_OUT_SILENCE_SECONDS)
        ]
        client = await stack.enter_async_context(
            AttemptClient(policy, timeout_seconds=settings.webhook_timeout_seconds)
        )
        leases = EndpointLeases(connections[0], sender_id, keys)
        round_ = Round(leases, results, client, connections[0], request_seconds=settings.webhook_timeout_seconds)
        return await round_.run(FanOut(connections[1], keys, settings.webhook_callback_origins))


class Round:
    """One round. `run` it once."""

    def __init__(
        self,
        leases: EndpointLeases,
        results: Results,
        client: AttemptClient,
        connection: Connection,
        *,
        request_seconds: float,
    ) -> None:
        self._leases = leases
        self._results = results
        self._client = client
        self._connection = connection
        self._request_seconds = request_seconds
        self._slots = Slots()
        #: Endpoints that wait for a slot of a class, by it and their store.
        self._queues: defaultdict[tuple[RequestClass, int], deque[Endpoint]] = defaultdict(deque)
        self._requests: set[asyncio.Task[None]] = set()
        self._something_new = asyncio.Event()
        self._fanned_out = 0
        self._is_fanning_out = False
        self._is_closing = False
        self._worked_at = self._take_at = self._probing_until = self._slice_until = self._latest = 0.0

    async def run(self, outbox: FanOut) -> dict[str, int]:
        """Work until there is nothing to do or the slice of time is over."""
        now = self._worked_at = time.monotonic()
        self._probing_until = now + SLICE_SECONDS
        self._slice_until = self._probing_until + self._request_seconds
        self._latest = self._slice_until + self._request_seconds
        fan_out = asyncio.create_task(self._fan_out(outbox))
        try:
            while not self._is_over():
                await self._step()
                if fan_out.done():
                    fan_out.result()
                await self._wait()
            unfinished = self._is_closing
            await self._close()
            await fan_out
        finally:
            # Only an error leaves any of them.
            for task in (fan_out, *self._requests):
                task.cancel()
        return {"fanned_out": self._fanned_out, "unfinished": int(unfinished)}

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._slots.taken or len(self._results) or self._is_fanning_out:
            self._worked_at = now
        elif now - self._worked_at >= IDLE_SECONDS:
            return True
        # Beyond the slice, endpoints that work are still served while others are waited for.
        is_late = now >= self._slice_until and (now >= self._latest or not self._slots.has_slow(now))
        self._is_closing = is_late or is_stopping()
        return self._is_closing

    async def _step(self) -> None:
        """Bring Postgres and the requests under way up to date with each other."""
        now = time.monotonic()
        await self._results.write(self._connection)
        await self._leases.renew()
        await self._leases.release_done()
        taken = 0
        if now >= self._take_at:
            taken = await self._leases.take(also_failing=now < self._probing_until)
            self._take_at = now + TAKE_SECONDS
        if taken or await self._leases.refill():
            self._worked_at = now
        if taken:
            await self._leases.refill()
        self._slots.move_slow(now)
        for endpoint in self._leases.held.values():
            self._send_next(endpoint)

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STEP_SECONDS):
                await self._something_new.wait()
        self._something_new.clear()

    async def _fan_out(self, outbox: FanOut) -> None:
        while not self._is_closing:
            self._is_fanning_out = True
            done = await outbox.next_part()
            self._is_fanning_out = False
            if done:
                self._fanned_out += done
                self._worked_at = time.monotonic()
                if not self._leases.held:
                    self._take_at = 0.0
                self._something_new.set()
            else:
                await asyncio.sleep(OUTBOX_SECONDS)

    def _send_next(self, endpoint: Endpoint) -> None:
        """Begin as many requests to the endpoint as its concurrency and the slots allow."""
        if self._is_closing or (endpoint.failing_since is not None and time.monotonic() >= self._probing_until):
            return
        while endpoint.waiting and endpoint.sending < endpoint.concurrency.limit:
            kind = _class_of(endpoint)
            slot = self._slots.take(kind, time.monotonic(), endpoint.key[0])
            if slot is None:
                if not endpoint.is_queued:
                    endpoint.is_queued = True
                    self._queues[kind, endpoint.key[0]].append(endpoint)
                return
            endpoint.sending += 1
            request = asyncio.create_task(self._send(endpoint, endpoint.waiting.popleft(), slot))
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _send(self, endpoint: Endpoint, due: Due, slot: int) -> None:
        try:
            if due.body is None:
                self._results.add_lost(endpoint, due)
            else:
                headers = endpoint.signer.headers(public_event_id(due.event_id), datetime.now(UTC), due.body)
                outcome = await self._client.send(due.url, headers, due.body.encode(), store_id=endpoint.key[0])
                self._results.add(endpoint, due, outcome)
        finally:
            endpoint.sending -= 1
            kind = self._slots.give_back(slot)
        self._pass_on(endpoint, self._queues[kind, endpoint.key[0]])
        if len(self._results) >= MANY_RESULTS or not endpoint.waiting:
            self._something_new.set()

    def _pass_on(self, endpoint: Endpoint, queue: deque[Endpoint]) -> None:
        """Give a slot that came free to who of the store has waited longest for one, or else to the same endpoint."""
        if queue:
            longest = queue.popleft()
            longest.is_queued = False
            self._send_next(longest)
        self._send_next(endpoint)

    async def _close(self) -> None:
        """Begin nothing more, wait for what is under way, write it down, and give everything back."""
        self._is_closing = True
        for endpoint in self._leases.held.values():
            endpoint.stop()
        await self._leases.release_done()
        while self._requests:
            await asyncio.wait(self._requests, timeout=1.0)
            await self._results.write(self._connection)
            await self._leases.renew()
        await self._results.write(self._connection)
        await self._leases.release_all()


def _class_of(endpoint: Endpoint) -> RequestClass:
    if endpoint.failing_since is not None:
        return RequestClass.SLOW
    return RequestClass.QUICK if endpoint.concurrency.is_proven else RequestClass.NEW
