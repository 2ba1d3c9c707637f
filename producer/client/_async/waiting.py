"""Finds and awaits results, for the asyncio client: announced ones first, Postgres for the rest."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....lanes.keys import Keys
from ....schemas.errors import ConfigurationError, CreditlaneError, Unavailable
from ....schemas.journal import Announcement
from ....schemas.results import Result, result_of_announcement
from ....schemas.tickets import Ticket
from ..collect import FOREIGN_PAUSES, OWN_PAUSES, ResultCollector, WaitPolicy
from ..lane_reads import entry_call, is_on_lane, poll_stream
from ..pending_replies import Inbox, PendingReplies
from ..read_ahead import ReadAhead
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, BLOCK_SECONDS, ExchangeFailed, refuse_errors
from ..replays import Replays
from ..reply_stream import ReplyStream
from ..resolve import is_decided, lost, overdue, queued, resolve_announced
from .concurrency import Event, Future, Slots, outcome_within, sleep, wait_for_event
from .ledger_reader import AsyncLedgerReader
from .listener import AsyncListener
from .redis_connection import AsyncRedisWire

#: Most tasks that may each hold a connection to wait at a poll key; the others ask Postgres now and then.
MAX_POLL_WAITERS = 16
#: How long after the time that it was asked to wait Redis may answer, in seconds.
REST_MARGIN_SECONDS = 0.5


class AsyncWaiting:
    """Knows where results are to be had. Any number of tasks may use it."""

    def __init__(
        self,
        wire: AsyncRedisWire,
        reader: AsyncLedgerReader,
        pending: PendingReplies[Future[Announcement]],
        listener: AsyncListener,
        keys: Keys,
        replays: Replays,
        partitions: Callable[[float], Awaitable[int]],
    ) -> None:
        self._wire = wire
        self._reader = reader
        self._pending = pending
        self._listener = listener
        self._keys = keys
        self._repeats = replays
        self._partitions = partitions
        #: What is looked up together, see there.
        self.ahead: ReadAhead = ReadAhead()
        self._poll_slots = Slots(MAX_POLL_WAITERS)

    def expect(self, number: int) -> Future[Announcement]:
        """Return the future of an announcement. Made before its command is sent, it cannot miss it."""
        self._listener.start()
        return self._pending.expect(number)

    def forget(self, number: int, future: Future[Announcement]) -> None:
        """Drop the future of a command that was not sent."""
        self._pending.forget(number, future)

    async def find(self, ticket: Ticket, deadline: float, poll: ReplyStream | None = None) -> Result:
        """Return what is known of the ticket's command now, by the deadline.

        Raises:
            OutcomeUnknown: it is neither on its lane nor in the ledger.
            Unavailable: Redis or Postgres cannot be reached.
        """
        try:
            # What is decided stands in Postgres, whatever has become of Redis: time is left to ask there.
            lane, *kept = await self._read_lane(ticket, part_of(deadline, ANSWER_TIMEOUT_SECONDS), poll)
        except Unavailable:
            result = await self._decision(ticket, deadline)
            if result is None or not is_decided(result):
                raise
            return result
        for announcements in poll.take(kept) if poll is not None else ():
            if result := resolve_announced(ticket, announcements):
                return result
        # The lane was read first: a command leaves it only after the commit, so one of the two has it.
        result = await self._decision(ticket, deadline)
        if result is None and not is_on_lane(ticket, lane):
            raise lost(ticket)
        return result or queued(ticket)

    async def poll_stream(self, ticket: Ticket, deadline: float) -> ReplyStream | None:
        """Return the stream under the ticket's poll key, if its result is kept."""
        if not ticket.kept and not ticket.dry_run:
            return None
        return poll_stream(ticket, self._keys, await self._partitions(deadline))

    async def wait_again(self, ticket: Ticket, timeout: float) -> Result:
        """Return the result of a command that this producer sent before, or raise OutcomeUnknown at the deadline.

        What was announced already is not waited for: it is looked up at once, and with it what is likely asked next.
        """
        deadline = time.monotonic() + timeout
        if known := self.ahead.known(ticket):
            return known
        future = self.expect(ticket.number)
        if not future.done() and self._pending.has_passed(ticket.number):
            try:
                result = await self._decided_already(ticket, deadline_in(timeout))
            except (Unavailable, ConfigurationError):
                # It is tried again below, as long as the caller waits.
                result = None
            except BaseException:
                # Who is interrupted waits for nothing more.
                self._pending.forget(ticket.number, future)
                raise
            if result is not None and is_decided(result):
                self._pending.forget(ticket.number, future)
                return result
        return await self.wait_own(ticket, future, deadline, timeout)

    async def wait_own(self, ticket: Ticket, future: Future[Announcement], deadline: float, timeout: float) -> Result:
        """Return the result of a command of this producer, or raise OutcomeUnknown at the deadline."""
        pauses = growing_pauses(*OWN_PAUSES)
        trouble: CreditlaneError | None = None
        try:
            while True:
                announcement = await outcome_within(future, min(seconds_until(deadline), next(pauses)))
                if announcement is not None:
                    self._repeats.note_result(ticket)
                    return result_of_announcement(announcement, ticket.account_id, ticket.idempotency_key)
                if time.monotonic() >= deadline:
                    raise overdue(ticket, timeout) from trouble
                # Not announced in good time: the announcement may have been trimmed away, or Redis restarted.
                try:
                    # The ledger has nothing of a dry run.
                    poll = await self.poll_stream(ticket, deadline) if ticket.dry_run else None
                    if is_decided(result := await self.find(ticket, deadline, poll)):
                        return result
                except (Unavailable, ConfigurationError) as error:
                    trouble = error
        finally:
            self._pending.forget(ticket.number, future)

    async def wait_foreign(self, ticket: Ticket, timeout: float) -> Result:
        """Return the result of a command of any process, or raise OutcomeUnknown at the deadline."""
        deadline = time.monotonic() + timeout
        pauses = growing_pauses(*FOREIGN_PAUSES)
        # However short the timeout is, it is asked for once.
        reads_until = deadline_in(timeout)
        poll: ReplyStream | None = None
        trouble: CreditlaneError | None = None
        while True:
            try:
                poll = poll or await self.poll_stream(ticket, reads_until)
                if is_decided(result := await self.find(ticket, reads_until, poll)):
                    return result
            except Unavailable as error:
                trouble = error
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise overdue(ticket, timeout) from trouble
            if announced := await self._rest(ticket, poll, remaining, next(pauses)):
                return announced

    async def collect(self, collector: ResultCollector, timeout: float | None) -> AsyncGenerator[Result, None]:
        """Yield each result as it comes; raise OutcomeUnknown when the wait is over."""
        inbox = Inbox(collector.covers, Event())
        self._pending.subscribe(inbox)
        try:
            if collector.has_own:
                self._listener.start()
            policy = WaitPolicy(time.monotonic(), timeout, has_own=collector.has_own)
            async with aclosing(self._collect(collector, inbox, policy)) as results:
                async for result in results:
                    yield result
        finally:
            self._pending.unsubscribe(inbox)

    async def _collect(
        self, collector: ResultCollector, inbox: Inbox[Event], policy: WaitPolicy
    ) -> AsyncGenerator[Result, None]:
        trouble: CreditlaneError | None = None
        while collector.remaining:
            await wait_for_event(inbox.event, policy.wait_seconds(time.monotonic()))
            results = [result for announcement in inbox.take() if (result := collector.claim(announcement))]
            asked = not results
            if asked:
                lookup = collector.next_lookup()
                try:
                    found = await self._reader.decisions(lookup.tickets, policy.lookup_seconds(time.monotonic()))
                    found = list(map(self._repeats.marked, lookup.tickets, found))
                    results = collector.settle(lookup, await self._with_dry_runs(lookup.tickets, found))
                except (Unavailable, ConfigurationError) as error:
                    if isinstance(error, ConfigurationError) and not collector.has_own:
                        raise
                    trouble = error
            now = time.monotonic()
            policy.note(len(results), asked=asked, now=now)
            for decided in results:
                yield decided
            if collector.remaining and (spent := policy.spent_seconds(now)) is not None:
                raise collector.unknown(spent) from trouble

    async def _with_dry_runs(self, tickets: Sequence[Ticket], found: list[Result | None]) -> list[Result | None]:
        """Return the results with those of dry runs, which are under their poll keys only."""
        missing = [at for at, ticket in enumerate(tickets) if ticket.dry_run and not is_decided(found[at])]
        if not missing:
            return found
        deadline = deadline_in(ANSWER_TIMEOUT_SECONDS)
        partitions = await self._partitions(deadline)
        polls = [poll for at in missing if (poll := poll_stream(tickets[at], self._keys, partitions))]
        answers = refuse_errors(await self._wire.exchange([poll.read_call() for poll in polls], deadline=deadline))
        for at, poll, answer in zip(missing, polls, answers, strict=True):
            for announcements in poll.take([answer]):
                found[at] = resolve_announced(tickets[at], announcements) or found[at]
        return found

    async def _read_lane(self, ticket: Ticket, deadline: float, poll: ReplyStream | None) -> Sequence[Any]:
        """Return the ticket's entry of its lane, if it is there, and what is kept under its poll key."""
        calls = [entry_call(ticket, self._keys, await self._partitions(deadline))]
        if poll is not None:
            calls.append(poll.read_call())
        return refuse_errors(await self._wire.exchange(calls, deadline=deadline))

    async def _decided_already(self, ticket: Ticket, deadline: float) -> Result | None:
        if ticket.dry_run:
            return await self.find(ticket, deadline, await self.poll_stream(ticket, deadline))
        return await self._decision(ticket, deadline)

    async def _decision(self, ticket: Ticket, deadline: float) -> Result | None:
        """Return what Postgres has of the ticket's command; what is likely asked next is looked up with it."""
        tickets = self.ahead.window(ticket)
        found = await self._reader.decisions(tickets, seconds_until(deadline))
        results = list(map(self._repeats.marked, tickets, found))
        self.ahead.keep(tickets, results)
        return results[0]

    async def _rest(self, ticket: Ticket, poll: ReplyStream | None, remaining: float, pause: float) -> Result | None:
        if poll is None or not await self._poll_slots.take(0.0):
            await sleep(min(remaining, pause))
            return None
        answer_by = time.monotonic() + min(remaining, BLOCK_SECONDS) + REST_MARGIN_SECONDS
        try:
            for announcements in poll.take(await self._wire.exchange_once([poll.wait_call(remaining)], answer_by)):
                if result := resolve_announced(ticket, announcements):
                    return result
        except (ExchangeFailed, Unavailable):
            # The next read says whether Redis can be reached; it tries more than once.
            await sleep(min(remaining, pause))
        finally:
            self._poll_slots.give_back()
        return None
