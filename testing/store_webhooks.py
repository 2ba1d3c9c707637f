"""One store's endpoints in memory, and what is to be sent to them: the events that the worker would make.

Nothing is sent. A delivery stays pending until a test has it delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from ..lanes.encoding import LaneCommand
from ..schemas.errors import WebhookNotFound
from ..schemas.events import EVENT_TYPES, new_secret, public_event_id
from ..schemas.journal import JournalRow
from ..schemas.results import moment_of
from ..schemas.webhooks import DeliveryWithBody, Webhook
from ..worker.ledger.state import Outcome
from ..worker.webhooks.callbacks import callback_event
from ..worker.webhooks.event_bodies import Event, OutboxItem, events_of
from .store_ledger import StoreLedger

#: Under which the deliveries by callbacks are kept, which belong to no endpoint.
CALLBACKS = None


class StoreWebhooks:
    """The endpoints of one store, the secrets they sign with, and every delivery."""

    def __init__(self, store_id: str, now: Callable[[], datetime]) -> None:
        self.store_id = store_id
        #: Returns the time.
        self.now = now
        #: In the order in which they were made, without their secrets.
        self.endpoints: dict[str, Webhook] = {}
        #: By endpoint, the newest last; of callbacks under `CALLBACKS`.
        self.secrets: dict[str | None, list[str]] = {}
        #: By endpoint and event, oldest first.
        self.deliveries: dict[tuple[str | None, str], DeliveryWithBody] = {}

    def endpoint(self, webhook_id: str) -> Webhook:
        """Return the endpoint.

        Raises:
            WebhookNotFound: the store has none of this id.
        """
        # Not every caller has its types checked.
        found = self.endpoints.get(str(webhook_id))
        if found is None:
            raise WebhookNotFound
        return found

    def delivery(self, webhook_id: str | None, event_id: str) -> DeliveryWithBody:
        """Return the delivery of this event, by a callback where there is no endpoint.

        Raises:
            WebhookNotFound: the store has none.
        """
        found = self.deliveries.get((None if webhook_id is None else str(webhook_id), str(event_id)))
        if found is None:
            raise WebhookNotFound
        return found

    def change_delivery(self, webhook_id: str | None, event_id: str, **fields: object) -> DeliveryWithBody:
        """Change what is given of the delivery and return it; raises as `delivery` does."""
        changed = self.delivery(webhook_id, event_id).model_copy(update=fields)
        self.deliveries[webhook_id, event_id] = changed
        return changed

    def publish(self, ledger: StoreLedger, command: LaneCommand, outcome: Outcome, now_us: int) -> None:
        """Make the deliveries of what was decided on the command: to endpoints that want it, and by its callback."""
        if outcome.dry_run:
            return
        at = moment_of(now_us)
        if not outcome.replayed:
            self.publish_rows(ledger, [] if outcome.row is None else [outcome.row, *outcome.further], now_us)
        decided = outcome.row or outcome.refusal
        if command.callback_url is not None and decided is not None:
            event = callback_event(
                ledger.number,
                command.account_id,
                command.idempotency_key,
                command.callback_url,
                decided,
                sequence=None if outcome.row is None else ledger.sequence_of(outcome.row),
                written_at_us=now_us,
            )
            self.secrets.setdefault(CALLBACKS, [new_secret()])
            self.add(CALLBACKS, event, at, command.callback_url)

    def publish_rows(self, ledger: StoreLedger, rows: Iterable[JournalRow], now_us: int) -> None:
        """Make the deliveries of the rows that were just written, to endpoints that want them."""
        for row in rows if self.endpoints else ():
            for event in events_of(_item_of(ledger, row), EVENT_TYPES):
                for endpoint in self._who_want(event.event_type):
                    self.add(endpoint.id, event, moment_of(now_us))

    def add(self, webhook_id: str | None, event: Event, at: datetime, url: str | None = None) -> None:
        """Have the event delivered, unless it is or was."""
        event_id = public_event_id(event.event_id)
        self.deliveries.setdefault(
            (webhook_id, event_id),
            DeliveryWithBody(
                event_id=event_id,
                event_type=event.event_type,
                status="pending",
                attempts=0,
                response_status=None,
                latency_ms=None,
                response_body=None,
                error=None,
                next_attempt_at=at,
                last_attempt_at=None,
                created_at=at,
                url=url,
                body=event.body,
            ),
        )

    def _who_want(self, event_type: str) -> Iterator[Webhook]:
        for endpoint in self.endpoints.values():
            if endpoint.status == "enabled" and (not endpoint.events or event_type in endpoint.events):
                yield endpoint


def _item_of(ledger: StoreLedger, row: JournalRow) -> OutboxItem:
    account, state = ledger.accounts.get(row.account_id), ledger.state(row.account_id)
    # A decision names the entries before it. No entry of its account is newer than those of one command.
    sequence = state.entries + state.decisions if row.entries_before is None else row.entries_before - row.seq
    if account is None:
        return OutboxItem(row, sequence, ledger.store_id, None, None, None, None, None)
    return OutboxItem(
        row,
        sequence - (state.entries - row.seq if row.seq > 0 else 0),
        ledger.store_id,
        account.customer_id,
        account.name,
        account.unit_label,
        account.created_at_us,
        # Every entry here was decided by a ledger that writes down itself what it falls below.
        None,
    )
