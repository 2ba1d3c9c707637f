"""The asyncio client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ....lanes.deadlines import deadline_in, rest_of
from ....lanes.routing import partition_of
from ....schemas.accounts import Account, BalanceAt, Entry, Transaction
from ....schemas.commands import Command, OpenAccount
from ....schemas.errors import CreditlaneError, OutcomeUnknown, Unavailable
from ....schemas.holds import AccountHold, HoldStatusName
from ....schemas.results import Result
from ....schemas.settings import Settings, load_settings
from ....schemas.tickets import Ticket
from ...ledger.lookups import (
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
from ...operations import scheduling
from ..chunks import chunk_of, valid_account_id
from ..collect import ResultCollector
from ..resolve import account_as_changed, account_as_opened, hold_as_changed, hold_as_made, own_ticket, unread
from ..tickets import Tickets
from .concurrency import Scoped
from .enqueue_many import enqueue_many
from .ensure_account import AsyncEnsureAccount
from .webhooks import AsyncWebhooks

if TYPE_CHECKING:
    from .session import AsyncSession

CLOSED = "This client is closed; make a new one."


class AsyncClient(AsyncEnsureAccount):
    """Puts commands of one store on the lanes and gets their results back. The tasks of an event loop may share one.

    Connects at the first use, to Redis, and to Postgres only for what is read there. Amounts are whole numbers of the
    account's unit, as int or digit string; times are in seconds. What cannot reach Redis or Postgres raises
    `Unavailable`, what is not set up raises `ConfigurationError`; both from every method that talks to them. From a
    method that sends something, `Unavailable` says that nothing of it was accepted. A call that takes a `timeout` ends
    within it and half a second, whatever the servers do; without one the setting counts, if it does not say otherwise,
    as it does for `enqueue`, `result` and `pending`. The others wait 5 seconds at most for each read and each change in
    Postgres, and so does `close`.
    """

    def __init__(self, settings: Settings) -> None:
        # The driver comes with it: not for who only takes the class for a base, as the one without servers does.
        from .session import AsyncSession

        self.settings = settings
        #: The endpoints that hear of what happens in the store.
        self.webhooks: AsyncWebhooks = AsyncWebhooks(settings, self._session)
        self._closed = False
        self._sessions = Scoped(lambda: AsyncSession(self.settings))

    @classmethod
    def from_env(cls, **overrides: object) -> Self:
        """Return a client with the settings of the environment (`CREDITLANE_…`), these values before them.

        Raises:
            ConfigurationError: a value is not allowed; the message names it.
        """
        return cls(load_settings(**overrides))

    async def enqueue(self, command: Command) -> Ticket:
        """Put the command on its account's lane and return its ticket, once it stands there durably.

        The ticket can be stored and asked about from any process of the store; the result is also kept in Redis.

        Raises:
            InvalidCommand: it is no command, or another store's; nothing was sent.
            LaneFull: the lane is at its limit and accepted nothing.
            Unavailable: Redis could not be reached, or refuses; the command was not accepted.
            OutcomeUnknown: the command was sent, and no attempt was answered. Send it again as it was: because of its
                key it has one effect, however often it is accepted.
        """
        session = self._session()
        deadline = deadline_in(self.settings.wait_timeout_seconds)
        chunk = chunk_of(command, self.settings.store, await session.partitions(deadline))
        return await session.send(chunk, session.numbers.take(), deadline, keep=True)

    async def enqueue_many(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        *,
        keep_results: bool = False,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = None,
    ) -> Tickets:
        """Put all the commands on their lanes, in order, and return their tickets, packed.

        Takes any iterable of either kind, also a generator of millions: they are sent in chunks, and what is held of
        each is its ticket. `on_progress` gets the number accepted so far. A full lane is waited for, up to `timeout`
        seconds without any progress (else the setting's). With `keep_results` other processes learn of results
        without asking Postgres, which costs the worker a write a command.

        Raises:
            InvalidCommand: a command breaks a rule; names its position and field, and everything before it is accepted.
            LaneFull: a lane stayed full; `accepted` tells how many were accepted.
            Unavailable: nothing was accepted.
            OutcomeUnknown: some of them were, or that is not known; the message tells how many were accepted for
                certain. Sending everything again under the same keys is safe.
        """
        session, seconds = self._session(), self._timeout(timeout)
        tickets = await enqueue_many(
            session.sender,
            commands,
            await session.partitions(deadline_in(seconds)),
            keep=keep_results,
            stall_seconds=seconds,
            on_progress=on_progress,
        )
        session.waiting.ahead.remember(tickets)
        return tickets

    async def schedule(self, command: Command, *, at: datetime) -> str:
        """Have the command put on its lane at this time, or at once if it is past, and return its idempotency key.

        The same command again moves the time. Processes of `creditlane jobs work` do it, a second late at most.

        Raises:
            InvalidCommand: it is no command, another store's or a dry run, or the time has no offset.
            IdempotencyKeyMismatch: another command is scheduled under the key.
        """
        return await self._session().reader.run(scheduling.schedule(command, self.settings.store, at))

    async def cancel(self, idempotency_key: str) -> bool:
        """Forget the scheduled command of this key and return True; False if it is on its lane already, or none.

        Raises:
            InvalidCommand: it is no key, so nothing can be scheduled under it.
        """
        wanted = lookup(OfKey, idempotency_key=idempotency_key)
        return await self._session().reader.run(scheduling.cancel(wanted.idempotency_key, self.settings.store))

    async def result(self, ticket: Ticket | str) -> Result:
        """Return at once what is known of the ticket's command: `queued` until it is decided. Raises no rejection.

        Raises:
            InvalidCommand: it is no ticket, or another store's.
            OutcomeUnknown: no such command is on its lane, in the ledger or among the dead letters.
        """
        session, ticket = self._session(), own_ticket(ticket, self.settings.store)
        deadline = deadline_in(self.settings.wait_timeout_seconds)
        return await session.waiting.find(ticket, deadline, await session.waiting.poll_stream(ticket, deadline))

    async def wait(self, ticket: Ticket | str, timeout: float | None = None) -> Result:
        """Return the result of the ticket's command as soon as there is one. Raises no rejection.

        Raises:
            InvalidCommand: it is no ticket, or another store's.
            OutcomeUnknown: there is none within `timeout` seconds (else the setting's), or no such command.
        """
        session, ticket = self._session(), own_ticket(ticket, self.settings.store)
        if ticket.producer_id == session.producer_id and ticket.number:
            return await session.waiting.wait_again(ticket, self._timeout(timeout))
        return await session.waiting.wait_foreign(ticket, self._timeout(timeout))

    def wait_many(self, tickets: Iterable[Ticket | str], timeout: float | None = None) -> AsyncIterator[Result]:
        """Yield the result of each of the commands once, as they come. Raises no rejection.

        Raises:
            InvalidCommand: one is no ticket, or another store's.
            OutcomeUnknown: not all came within `timeout` seconds; without it, none at all came for a minute.
        """
        session = self._session()
        return session.waiting.collect(ResultCollector(tickets, self.settings.store, session.producer_id), timeout)

    async def balance(self, account_id: str, after: Ticket | str | None = None, timeout: float | None = None) -> int:
        """Return the account's balance, after waiting for the command of the ticket `after`, if one is given.

        Raises:
            AccountNotFound: the store has no such account.
            OutcomeUnknown: that command is not decided within `timeout` seconds (else the setting's).
        """
        account_id, deadline = valid_account_id(account_id), deadline_in(self._timeout(timeout))
        if after is not None:
            await self.wait(after, timeout)
        account = await self._session().reader.account(account_id, rest_of(deadline))
        return account.balance

    async def balance_at(self, account_id: str, at: datetime, timeout: float | None = None) -> BalanceAt:
        """Return the account's balance after everything up to and including this moment, and which moment it is of.

        What was answered once stays. A moment at which something can still come is answered as of the latest one that
        cannot change any more, and `as_of` says which; in the future it is the present one. Before the opening it is 0.

        Raises:
            InvalidCommand: the moment has no offset.
            AccountNotFound: the store has no such account.
            Unavailable: also where a writer has been under way for long; ask again shortly.
        """
        account_id, moment = valid_account_id(account_id), valid_moment(at)
        return await self._session().reader.balance_at(account_id, moment, rest_of(deadline_in(self._timeout(timeout))))

    async def account(self, account_id: str) -> Account:
        """Return the account as it is now; raises AccountNotFound if the store has none of this id."""
        return await self._session().reader.account(valid_account_id(account_id))

    async def find_account(self, *, customer_id: str, name: str = "default") -> Account | None:
        """Return the customer's account of this name that is not closed, or None: there is one at most.

        Names are compared as they are kept apart: trimmed, and without regard to case.
        """
        wanted = lookup(OfName, customer_id=customer_id, name=name)
        return await self._session().reader.open_account(wanted.customer_id, wanted.name)

    def accounts(self, customer_id: str | None = None, limit: int | None = None) -> AsyncIterator[Account]:
        """Yield the customer's accounts, or the store's, in whatever state; newest first, read in pages."""
        wanted = lookup(OfCustomer, customer_id=customer_id)
        return self._session().reader.accounts(wanted.customer_id, limit)

    def entries(self, account_id: str, limit: int | None = None) -> AsyncIterator[Entry]:
        """Yield the account's entries, newest first, read in pages as they are asked for, at most `limit` of them.

        Raises:
            AccountNotFound: the store has no such account.
        """
        return self._session().reader.entries(valid_account_id(account_id), limit)

    async def transaction(self, transaction_id: str) -> Transaction:
        """Return the transaction with all its entries; raises TransactionNotFound if the store has none of this id."""
        wanted = lookup(OfTransaction, transaction_id=transaction_id)
        return await self._session().reader.transaction(wanted.transaction_id)

    def transactions(self, reference: str, limit: int | None = None) -> AsyncIterator[Transaction]:
        """Yield the transactions of exactly this reference, newest first, read in pages; none if there are none.

        A reversal has the reference of what it undoes.
        """
        wanted = lookup(OfReference, reference=reference)
        return self._session().reader.transactions(wanted.reference, limit)

    async def hold_by_id(self, hold_id: str) -> AccountHold:
        """Return the hold as it is now; raises HoldNotFound if the store has none of this id."""
        wanted = lookup(OfHold, hold_id=hold_id)
        return await self._session().reader.hold(wanted.hold_id)

    def holds(
        self, account_id: str, status: HoldStatusName | None = None, limit: int | None = None
    ) -> AsyncIterator[AccountHold]:
        """Yield the account's holds, or those of a status ("open", "captured" …), newest first, read in pages.

        Raises:
            AccountNotFound: the store has no such account.
        """
        wanted = lookup(OfHolds, account_id=account_id, status=status)
        return self._session().reader.holds(wanted.account_id, wanted.number, limit)

    async def pending(self, account_id: str) -> int:
        """Return how many commands of the account are accepted and not decided. Reads its lane from end to end."""
        from ..lane_reads import PendingCount

        session, deadline = self._session(), deadline_in(self.settings.wait_timeout_seconds)
        lane = session.keys.lane(partition_of(valid_account_id(account_id), await session.partitions(deadline)))
        pending = PendingCount(lane, self.settings.store, account_id)
        while not pending.is_done:
            pending.take(await session.wire.exchange([pending.page_call()], deadline=deadline))
        return pending.count

    async def close(self) -> None:
        """Close the connections. Results that were not awaited can still be had with their tickets."""
        self._closed = True
        session = self._sessions.take()
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.settings.store}>"

    async def _open(self, command: OpenAccount, timeout: float | None) -> Account:
        seconds = self._timeout(timeout)
        deadline = deadline_in(seconds)
        ticket, result = await self._apply(command, seconds)
        if result.dry_run and (account := account_as_opened(command, result, self.settings.store)):
            return account
        try:
            return await self._account_after(ticket, deadline)
        except OutcomeUnknown:
            # The announcement says enough of an account that is new.
            if account := account_as_opened(command, result, self.settings.store):
                return account
            raise

    async def _open_account_of(self, customer_id: str, name: str, seconds: float) -> Account | None:
        return await self._session().reader.open_account(customer_id, name, seconds)

    async def _change(self, command: Command, timeout: float | None) -> Account:
        seconds = self._timeout(timeout)
        deadline = deadline_in(seconds)
        ticket, result = await self._apply(command, seconds)
        return account_as_changed(await self._account_after(ticket, deadline), command, result)

    async def _account_after(self, ticket: Ticket, deadline: float) -> Account:
        """Return the account of a command that is applied. Unavailable would say that it was not even accepted."""
        try:
            return await self._session().reader.account(ticket.account_id, rest_of(deadline))
        except Unavailable as error:
            raise unread(ticket) from error

    async def _hold(self, command: Command, timeout: float | None) -> AccountHold:
        seconds = self._timeout(timeout)
        deadline = deadline_in(seconds)
        ticket, result = await self._apply(command, seconds)
        # What has just been made need not be read: whoever waits to spend it waits for the lane alone.
        if made := hold_as_made(command, result, self.settings.store):
            return made
        try:
            hold = await self._session().reader.hold(result.hold_id or "", rest_of(deadline))
        except Unavailable as error:
            raise unread(ticket) from error
        return hold_as_changed(hold, command, result)

    async def _decide(self, command: Command, timeout: float | None) -> Result:
        _, result = await self._apply(command, self._timeout(timeout))
        return result

    async def _touches(self, transaction_id: str, account_id: str, seconds: float) -> bool:
        return await self._session().reader.touches(transaction_id, account_id, seconds)

    async def _apply(self, command: Command, seconds: float) -> tuple[Ticket, Result]:
        session, wait_until, send_by = self._session(), time.monotonic() + seconds, deadline_in(seconds)
        chunk = chunk_of(command, self.settings.store, await session.partitions(send_by))
        ticket, result = await session.send_and_wait(chunk, seconds, send_by=send_by, wait_until=wait_until)
        result.raise_for_rejection()
        return ticket, result

    def _timeout(self, timeout: float | None) -> float:
        return self.settings.wait_timeout_seconds if timeout is None else timeout

    def _session(self) -> AsyncSession:
        if self._closed:
            raise CreditlaneError(CLOSED)
        return self._sessions.get()
