"""The endpoints that this process sends to. One process at a time sends to an endpoint; a dead one's lease runs out."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import structlog

from ...schemas.errors import SecretUnreadable
from ...schemas.events import public_endpoint_id
from ...schemas.fair_shares import share_of
from ...schemas.webhook_secrets import SecretKeys
from . import sql
from .concurrency import EndpointConcurrency
from .signing import Signer

#: How long an endpoint stays this process's without a heartbeat, in seconds.
LEASE_SECONDS = 30.0
#: How often the leases are renewed, in seconds.
RENEW_SECONDS = 8.0
#: Endpoints that are taken at once at first; as many again as are held, so that several processes share them.
FIRST_TAKEN = 4
#: Most endpoints that one process holds.
MAX_HELD = 1_000
#: Most of them that fail.
MAX_FAILING_HELD = 500
#: Most deliveries of one endpoint that are at hand, and how many for each request that it gets at once.
MAX_AT_HAND = 256
AT_HAND_PER_REQUEST = 8
#: At hand for all endpoints together, beyond which only those get more that have nothing.
MUCH_AT_HAND = 10_000
#: How long to wait before an endpoint that had nothing more due is asked about again, in seconds.
ASK_AGAIN_SECONDS = 0.1

_log = structlog.get_logger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
EndpointKey = tuple[int, UUID]
#: The current one, and the one before it while that signs as well.
Secrets = tuple[str, str | None]


class Due(msgspec.Struct, frozen=True, gc=False):
    """A delivery whose time has come."""

    event_id: UUID
    #: How many attempts have failed.
    attempts: int
    #: Where it goes.
    url: str
    #: None: the event is not kept any more.
    body: str | None


class Endpoint:
    """An endpoint that is ours to send to, with what is to be sent next."""

    def __init__(
        self,
        key: EndpointKey,
        kind: int,
        secrets: Secrets,
        signer: Signer,
        *,
        is_shared: bool = False,
        failing_seconds: float | None,
    ) -> None:
        self.key = key
        self.kind = kind
        #: Callbacks to several origins, of which one must not have the others wait.
        self.is_shared = is_shared
        #: As they are kept.
        self.secrets = secrets
        self.signer = signer
        self.concurrency: EndpointConcurrency = EndpointConcurrency()
        self.waiting: deque[Due] = deque()
        #: Events that are waiting, being sent, or whose result is not written yet.
        self.held: set[UUID] = set()
        self.sending = 0
        #: Since when it fails, by this process's clock; None: its latest attempt succeeded.
        self.failing_since: float | None = None if failing_seconds is None else time.monotonic() - failing_seconds
        #: Until when the endpoint asked to be left alone, by this process's clock.
        self.put_off_until: float = 0.0
        #: It has deliveries at hand and waits for a slot.
        self.is_queued = False
        #: It is left alone: nothing more is sent under this lease.
        self.is_stopped: bool = False
        self._ask_at = 0.0

    @property
    def wants_more(self) -> bool:
        """Whether there could be more to send soon than is at hand."""
        return not self.is_stopped and len(self.waiting) < self.concurrency.limit and time.monotonic() >= self._ask_at

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do under this lease."""
        return not self.held and (self.is_stopped or time.monotonic() < self._ask_at)

    @property
    def room(self) -> int:
        """How many deliveries to get at once."""
        return min(MAX_AT_HAND, AT_HAND_PER_REQUEST * self.concurrency.limit)

    def add(self, due: Sequence[Due], asked_for: int) -> None:
        """Put deliveries at hand; fewer than were asked for are all that there are."""
        self.waiting.extend(due)
        self.held.update(each.event_id for each in due)
        if len(due) < asked_for:
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS

    def stop(self) -> None:
        """Send nothing more; what is at hand stays in Postgres for later."""
        self.is_stopped = True
        self.held.difference_update(each.event_id for each in self.waiting)
        self.waiting.clear()


class EndpointLeases:
    """Takes, keeps and gives back endpoints in the name of one sender."""

    def __init__(self, connection: Connection, sender: str, keys: SecretKeys) -> None:
        self._connection = connection
        self._sender = sender
        self._keys = keys
        self._renew_at = time.monotonic() + RENEW_SECONDS
        self._at_once = FIRST_TAKEN
        self.held: dict[EndpointKey, Endpoint] = {}

    async def take(self, *, also_failing: bool) -> int:
        """Take endpoints that have something due, also failing ones if wanted; return how many were got.

        In turn from each store, and of none more than its share. Twice as many as the last time when that was all that
        were wanted: those that refuse are done with at once, however many there are.
        """
        limit = min(max(self._at_once, len(self.held)), MAX_HELD - len(self.held))
        if limit <= 0:
            return 0
        values = {
            **self._room(),
            "limit": limit,
            "also_failing": also_failing,
            "sender": self._sender,
            "seconds": LEASE_SECONDS,
        }
        records = await (await self._connection.execute(sql.TAKE_ENDPOINTS, values)).fetchall()
        self._at_once = min(2 * limit, MAX_HELD) if len(records) == limit else FIRST_TAKEN
        unreadable: list[EndpointKey] = []
        for store_id, endpoint_id, kind, is_shared, failing_seconds, *secrets in records:
            key, kept = (store_id, endpoint_id), (secrets[0], secrets[1])
            signer = self._signer(kept)
            if signer is None:
                unreadable.append(key)
            else:
                self.held[key] = Endpoint(key, kind, kept, signer, is_shared=is_shared, failing_seconds=failing_seconds)
        if unreadable:
            # They are left to their leases, which keep them from being taken time and again.
            first = public_endpoint_id(unreadable[0][1])
            _log.error(
                "endpoints get nothing", endpoints=len(unreadable), first=first, error=SecretUnreadable().message
            )
        return len(records)

    def _room(self) -> dict[str, Any]:
        """Return how many endpoints more a store may have held, and of them failing ones: each, and those with some."""
        held = Counter(store_id for store_id, _ in self.held)
        failing = Counter(key[0] for key, endpoint in self.held.items() if endpoint.failing_since is not None)
        room = share_of(MAX_HELD, len(self.held))
        failing_room = share_of(MAX_FAILING_HELD, failing.total())
        return {
            "room": room,
            "failing_room": failing_room,
            "stores": list(held),
            "rooms": [room - count for count in held.values()],
            "failing_rooms": [failing_room - failing[store_id] for store_id in held],
        }

    async def renew(self) -> None:
        """Keep what is held, when it is time; endpoints that are no longer ours are stopped."""
        if time.monotonic() < self._renew_at or not self.held:
            return
        self._renew_at = time.monotonic() + RENEW_SECONDS
        values = {**_columns(self.held), "sender": self._sender, "seconds": LEASE_SECONDS}
        records = await (await self._connection.execute(sql.RENEW_ENDPOINTS, values)).fetchall()
        for key in self.held.keys() - {(store_id, endpoint_id) for store_id, endpoint_id in records}:
            self.held[key].stop()

    async def refill(self) -> int:
        """Get what is due for endpoints that can take more; return how many deliveries that is."""
        hungry = self._hungry()
        if not hungry:
            return 0
        values = {
            **_columns([endpoint.key for endpoint in hungry]),
            "limits": [endpoint.room for endpoint in hungry],
            "held": [f"{{{','.join(map(str, endpoint.held))}}}" for endpoint in hungry],
            "sender": self._sender,
        }
        records = await (await self._connection.execute(sql.READ_DUE, values)).fetchall()
        found: dict[EndpointKey, list[Due]] = {}
        for store_id, endpoint_id, secret, previous_secret, *due in records:
            key = (store_id, endpoint_id)
            if self._has_signer(self.held[key], (secret, previous_secret)):
                found.setdefault(key, []).append(Due(*due))
        for endpoint in hungry:
            endpoint.add(found.get(endpoint.key, ()), endpoint.room)
        return len(records)

    def _has_signer(self, endpoint: Endpoint, kept: Secrets) -> bool:
        """Sign with these secrets from now on; where they cannot be read, nothing more is sent."""
        if kept != endpoint.secrets:
            signer = self._signer(kept)
            if signer is None:
                endpoint.stop()
                return False
            endpoint.secrets, endpoint.signer = kept, signer
        return not endpoint.is_stopped

    def _signer(self, kept: Secrets) -> Signer | None:
        """Return what signs with these secrets, or None if the current one cannot be read; no other suffers of it.

        One before it that cannot be read is left out: it was replaced because its key is lost.
        """
        for current, previous in (kept, (kept[0], None)):
            with suppress(SecretUnreadable):
                return Signer(self._keys.open(current), None if previous is None else self._keys.open(previous))
        return None

    def _hungry(self) -> list[Endpoint]:
        """Return the endpoints that want more; while there is much at hand, only those that have nothing."""
        at_hand = sum(len(endpoint.waiting) for endpoint in self.held.values())
        hungry = [endpoint for endpoint in self.held.values() if endpoint.wants_more]
        return hungry if at_hand < MUCH_AT_HAND else [endpoint for endpoint in hungry if not endpoint.waiting]

    async def release_done(self) -> None:
        """Give back endpoints that have nothing left to do."""
        await self._release([endpoint.key for endpoint in self.held.values() if endpoint.is_done])

    async def release_all(self) -> None:
        """Give back everything."""
        await self._release(list(self.held))

    async def _release(self, keys: Collection[EndpointKey]) -> None:
        if not keys:
            return
        await self._connection.execute(sql.RELEASE_ENDPOINTS, {**_columns(keys), "sender": self._sender})
        for key in keys:
            del self.held[key]


def _columns(keys: Iterable[EndpointKey]) -> dict[str, list[Any]]:
    keys = list(keys)
    return {"stores": [store_id for store_id, _ in keys], "endpoints": [endpoint_id for _, endpoint_id in keys]}
