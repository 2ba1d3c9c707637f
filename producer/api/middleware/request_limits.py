"""What one API process takes on at most of each store: requests, waits for results, and batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from ....lanes.keys import Keys
from ....schemas.errors import RateLimited
from ....schemas.fair_shares import share_of
from ....schemas.settings import Settings
from ..response_spool import SpoolSpace
from .active_stores import ActiveStores
from .fair_batches import FairBatches
from .fair_requests import FairRequests
from .rate_limits import RateLimits

#: What a request may come back after when every slot is taken, in seconds.
SLOTS_RETRY_SECONDS = 1.0


class SharedSlots:
    """So many slots for what stores do at the same time, of which a store may have its share."""

    def __init__(self, slots: int, too_many: str, instead: str) -> None:
        """`too_many` and `instead` are what a refusal says: what there is too much of, and what to do about it."""
        self._slots = slots
        self._too_many = too_many
        self._instead = instead
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, store_id: str) -> Iterator[None]:
        """Take a slot for the store, or raise RateLimited: nothing may have been accepted of the request yet."""
        taken = self._taken.total()
        if taken >= self._slots or self._taken[store_id] >= share_of(self._slots, taken):
            raise RateLimited(
                f"Too many {self._too_many}: {self._taken[store_id]} of the store, {taken} of the {self._slots} there "
                f"may be; nothing was accepted, {self._instead}.",
                retry_after=SLOTS_RETRY_SECONDS,
            )
        self._taken[store_id] += 1
        try:
            yield
        finally:
            self._taken[store_id] -= 1
            if not self._taken[store_id]:
                del self._taken[store_id]


class Limits:
    """The limits of one app that requests meet by themselves: `app.state.limits`."""

    def __init__(self, settings: Settings) -> None:
        self.rate_limits: RateLimits = RateLimits(settings)
        self.active_stores: ActiveStores = ActiveStores(Keys(settings.redis_prefix))
        self.fair_requests: FairRequests = FairRequests(self.active_stores)
        self.fair_batches: FairBatches = FairBatches(self.active_stores)
        self.waits: SharedSlots = SharedSlots(
            settings.api_waits,
            "requests wait for results (CREDITLANE_API_WAITS)",
            "send the same again shortly, or with the header Prefer: respond-async",
        )
        self.batches: SharedSlots = SharedSlots(
            settings.api_batches,
            "batches are under way (CREDITLANE_API_BATCHES)",
            "send the same again shortly, or more lines in fewer batches",
        )
        self.spool_space: SpoolSpace = SpoolSpace(settings.api_spool_bytes)


@contextmanager
def waiting_slot(request: Request) -> Iterator[None]:
    """Be the context to wait for a result in. Enter it before the command is sent.

    Raises, when entered:
        RateLimited: too many requests are waiting.
    """
    limits: Limits = request.app.state.limits
    store_id = request.state.store.public_id
    with limits.waits.slot(store_id), limits.fair_requests.left(store_id):
        yield
