"""The blocking client without servers. `fake_async_client` puts `await` before the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, NoReturn, TypeVar

from ..lanes.deadlines import deadline_in
from ..producer.client._sync.client import CLOSED, Client
from ..producer.client.chunks import (
    Chunk,
    chunk_of,
    chunks_of,
    valid_account_id,
)
from ..producer.client.identity import CommandNumbers, new_producer_id
from ..producer.client.resolve import (
    account_as_changed,
    account_as_opened,
    hold_as_changed,
    hold_as_made,
    is_decided,
    overdue,
    own_ticket,
)
from ..producer.client.tickets import Tickets
from ..producer.ledger.lookups import (
    OfCustomer,
    OfHold,
    OfHolds,
    OfKey,
    OfName,
    OfReference,
    OfTransaction,
    lookup,
    valid_moment,
)
from ..schemas.accounts import Account, BalanceAt, Entry, Transaction
from ..schemas.commands import Command, OpenAccount
from ..schemas.errors import CreditlaneError, LaneFull, OutcomeUnknown
from ..schemas.holds import AccountHold, HoldStatusName
from ..schemas.installation import DEFAULT_PARTITIONS
from ..schemas.results import Result
from ..schemas.settings import Settings
from ..schemas.tickets import Ticket
from . import store_reads
from .fake_ledger import FakeLedger
from .fake_webhooks import FakeWebhooks
from .store_ledger import StoreLedger

_ItemT = TypeVar("_ItemT")


class _Accepted(NamedTuple):
    """A chunk that stands on its lanes."""

    chunk: Chunk
    first_number: int
    entries: list[bytes]


class FakeClient(Client):
    """A `Client` over a ledger in memory: same methods, same rules, same errors, and nothing to connect to.

    What is accepted is decided before the call returns, so nothing is ever waited for and every `timeout` is met.
    Clients that are given the same ledger see the same accounts, each those of its settings' store. `ledger.clock`
    moves the time, `ledger.pause()` lets commands stay queued.
    """

    webhooks: FakeWebhooks

    def __init__(self, settings: Settings | None = None, *, ledger: FakeLedger | None = None) -> None:
        # Without any, the defaults, whatever stands in the environment.
        self.settings: Settings = Settings.model_construct() if settings is None else settings
        self.ledger: FakeLedger = FakeLedger() if ledger is None else ledger
        #: The endpoints that hear of what happens in the store.
        self.webhooks = FakeWebhooks(self.settings, self._open_ledger)
        self._closed = False
        self._producer_id = new_producer_id()
        self._numbers = CommandNumbers()

    def enqueue(self, command: Command) -> Ticket:
        """Put the command on its account's lane and return its ticket, as `Client.enqueue`."""
        return self._put(command, kept=True)

    def enqueue_many(
        self,
        commands: Iterable[Command],
        *,
        keep_results: bool = False,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = None,  # noqa: ARG002  nothing is waited for
    ) -> Tickets:
        """Put all the commands on their lanes, in order, and return their tickets, as `Client.enqueue_many`.

        A full lane is not waited for.
        """
        ledger, tickets = self._open_ledger(), Tickets(self.settings.store, self._producer_id, kept=keep_results)
        for chunk in chunks_of(commands, self.settings.store, DEFAULT_PARTITIONS):
            first_number = self._numbers.take(len(chunk))
            try:
                entries = ledger.accept(chunk, self.settings.lane_limit)
            except LaneFull as error:
                raise LaneFull(error.message, partition=error.partition, accepted=len(tickets)) from None
            tickets.append(_Accepted(chunk, first_number, entries))
            if on_progress is not None:
                on_progress(len(tickets))
        return tickets

    def schedule(self, command: Command, *, at: datetime) -> str:
        """Have the command put on its lane when the ledger's clock is moved to this time, as `Client.schedule`."""
        return self._open_ledger().schedule(command, self.settings.store, at)

    def cancel(self, idempotency_key: str) -> bool:
        """Forget the scheduled command of this key, as `Client.cancel`."""
        wanted = lookup(OfKey, idempotency_key=idempotency_key)
        return self._open_ledger().cancel(wanted.idempotency_key, self.settings.store)

    def result(self, ticket: Ticket | str) -> Result:
        """Return what is known of the ticket's command, as `Client.result`."""
        return self._open_ledger().result(own_ticket(ticket, self.settings.store))

    def wait(self, ticket: Ticket | str, timeout: float | None = None) -> Result:
        """Return the result of the ticket's command, as `Client.wait`.

        Raises:
            OutcomeUnknown: at once, if the ledger is paused and has not decided it.
        """
        ticket, seconds = own_ticket(ticket, self.settings.store), self._timeout(timeout)
        result = self._open_ledger().result(ticket)
        if not is_decided(result):
            raise overdue(ticket, seconds)
        return result

    def wait_many(self, tickets: Iterable[Ticket | str], timeout: float | None = None) -> Iterator[Result]:
        """Yield the result of each of the commands once, as `Client.wait_many`.

        Raises:
            OutcomeUnknown: after all others, if the ledger is paused and has not decided one.
        """
        ledger, store = self._open_ledger(), self.settings.store
        wanted = list(dict.fromkeys(own_ticket(ticket, store) for ticket in tickets))
        return _results_of(ledger, wanted, self._timeout(timeout))

    def balance(self, account_id: str, after: Ticket | str | None = None, timeout: float | None = None) -> int:
        """Return the account's balance, as `Client.balance`."""
        account_id = valid_account_id(account_id)
        self._timeout(timeout)
        if after is not None:
            self.wait(after, timeout)
        return store_reads.account(self._store_ledger(), account_id).balance

    def balance_at(
        self,
        account_id: str,
        at: datetime,
        timeout: float | None = None,
    ) -> BalanceAt:
        """Return the account's balance after everything up to this moment, as `Client.balance_at`."""
        account_id, moment = valid_account_id(account_id), valid_moment(at)
        self._timeout(timeout)
        return store_reads.balance_at(self._store_ledger(), account_id, moment, self.ledger.now())

    def account(self, account_id: str) -> Account:
        """Return the account as it is now, as `Client.account`."""
        return store_reads.account(self._store_ledger(), valid_account_id(account_id))

    def find_account(self, *, customer_id: str, name: str = "default") -> Account | None:
        """Return the customer's account of this name that is not closed, or None, as `Client.find_account`."""
        wanted = lookup(OfName, customer_id=customer_id, name=name)
        return self._account_of_name(wanted.customer_id, wanted.name)

    def accounts(self, customer_id: str | None = None, limit: int | None = None) -> Iterator[Account]:
        """Yield the customer's accounts, or the store's, newest first, as `Client.accounts`."""
        wanted = lookup(OfCustomer, customer_id=customer_id)
        return _at_most(limit, store_reads.accounts(self._store_ledger(), wanted.customer_id))

    def entries(self, account_id: str, limit: int | None = None) -> Iterator[Entry]:
        """Yield the account's entries, newest first, as `Client.entries`."""
        return _at_most(limit, store_reads.entries(self._store_ledger(), valid_account_id(account_id)))

    def transaction(self, transaction_id: str) -> Transaction:
        """Return the transaction with all its entries, as `Client.transaction`."""
        wanted = lookup(OfTransaction, transaction_id=transaction_id)
        return store_reads.transaction(self._store_ledger(), wanted.transaction_id)

    def transactions(self, reference: str, limit: int | None = None) -> Iterator[Transaction]:
        """Yield the transactions of exactly this reference, newest first, as `Client.transactions`."""
        wanted = lookup(OfReference, reference=reference)
        return _at_most(limit, store_reads.transactions(self._store_ledger(), wanted.reference))

    def hold_by_id(self, hold_id: str) -> AccountHold:
        """Return the hold as it is now, as `Client.hold_by_id`."""
        wanted = lookup(OfHold, hold_id=hold_id)
        return store_reads.hold(self._store_ledger(), wanted.hold_id)

    def holds(
        self, account_id: str, status: HoldStatusName | None = None, limit: int | None = None
    ) -> Iterator[AccountHold]:
        """Yield the account's holds, or those of a status, newest first, as `Client.holds`."""
        wanted = lookup(OfHolds, account_id=account_id, status=status)
        return _at_most(limit, store_reads.holds(self._store_ledger(), wanted.account_id, wanted.status))

    def pending(self, account_id: str) -> int:
        """Return how many commands of the account are accepted and not decided, as `Client.pending`."""
        return self._open_ledger().pending(self.settings.store, valid_account_id(account_id))

    def close(self) -> None:
        """Refuse every further call, as a closed `Client` does. What is in the ledger stays there."""
        self._closed = True

    def _session(self) -> NoReturn:
        raise CreditlaneError("this method of the client has no form without servers")

    def _account_of_name(self, customer_id: str, name: str) -> Account | None:
        store = self._store_ledger()
        account_id = store.holder_of_name(customer_id, name)
        return None if account_id is None else store_reads.account(store, account_id)

    def _open(self, command: OpenAccount, timeout: float | None) -> Account:
        result = self._decide(command, timeout)
        if result.dry_run and (account := account_as_opened(command, result, self.settings.store)):
            return account
        return store_reads.account(self._store_ledger(), result.account_id)

    def _open_account_of(self, customer_id: str, name: str, seconds: float) -> Account | None:  # noqa: ARG002  nothing is waited for
        return self._account_of_name(customer_id, name)

    def _change(self, command: Command, timeout: float | None) -> Account:
        result = self._decide(command, timeout)
        return account_as_changed(store_reads.account(self._store_ledger(), result.account_id), command, result)

    def _hold(self, command: Command, timeout: float | None) -> AccountHold:
        result = self._decide(command, timeout)
        if result.dry_run and (made := hold_as_made(command, result, self.settings.store)):
            return made
        return hold_as_changed(store_reads.hold(self._store_ledger(), result.hold_id or ""), command, result)

    def _touches(self, transaction_id: str, account_id: str, seconds: float) -> bool:  # noqa: ARG002  nothing is waited for
        return store_reads.touches(self._store_ledger(), transaction_id, account_id)

    def _decide(self, command: Command, timeout: float | None) -> Result:
        seconds = self._timeout(timeout)
        result = self.wait(self._put(command, kept=False), seconds)
        result.raise_for_rejection()
        return result

    def _put(self, command: Command, *, kept: bool) -> Ticket:
        ledger, number = self._open_ledger(), self._numbers.take()
        chunk = chunk_of(command, self.settings.store, DEFAULT_PARTITIONS)
        (entry,) = ledger.accept(chunk, self.settings.lane_limit)
        ((account_id,), (key,), (fingerprint,)) = chunk.accounts, chunk.keys, chunk.fingerprints
        store = self.settings.store
        is_dry_run = bool(chunk.dry_runs)
        return Ticket(store, account_id, key, entry.decode(), fingerprint, kept, self._producer_id, number, is_dry_run)

    def _timeout(self, timeout: float | None) -> float:
        """Return what counts of the time-out. What is no number of seconds fails here as it does where one waits."""
        seconds = super()._timeout(timeout)
        deadline_in(seconds)
        return seconds

    def _store_ledger(self) -> StoreLedger:
        return self._open_ledger().store(self.settings.store)

    def _open_ledger(self) -> FakeLedger:
        if self._closed:
            raise CreditlaneError(CLOSED)
        return self.ledger


def _results_of(ledger: FakeLedger, tickets: list[Ticket], seconds: float) -> Iterator[Result]:
    undecided: list[Ticket] = []
    for ticket in tickets:
        result = ledger.result(ticket)
        if is_decided(result):
            yield result
        else:
            undecided.append(ticket)
    if undecided:
        raise OutcomeUnknown(
            f"{len(undecided)} of {len(tickets)} commands have no result after {seconds:g} s, the first of them "
            f"that of key {undecided[0].idempotency_key!r}. They are accepted and may still apply: wait for them "
            "again.",
            ticket=undecided[0],
        )


def _at_most(limit: int | None, items: Iterator[_ItemT]) -> Iterator[_ItemT]:
    taken = 0
    # As the real one compares it, and when: whatever is no number fails at the first item.
    while limit is None or limit > taken:
        try:
            yield next(items)
        except StopIteration:
            return
        taken += 1
