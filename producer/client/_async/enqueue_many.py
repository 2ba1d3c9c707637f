"""How the asyncio client puts any number of commands on their lanes, in chunks, the next encoded while one is sent."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

from ....lanes.deadlines import deadline_in
from ....schemas.commands import Command
from ....schemas.errors import CreditlaneError
from ..chunks import async_chunks_of, with_progress
from ..tickets import Tickets

if TYPE_CHECKING:  # the driver comes with it, see the client
    from .sender import AsyncSender, Begun


async def enqueue_many(
    sender: AsyncSender,
    commands: Iterable[Command] | AsyncIterable[Command],
    partitions: int,
    *,
    keep: bool,
    stall_seconds: float,
    on_progress: Callable[[int], None] | None,
) -> Tickets:
    """Put all commands on their lanes, each chunk on its way while the next is encoded, and return their tickets.

    Raises:
        InvalidCommand: a command breaks a rule; everything before it is accepted.
        LaneFull: a lane took nothing for `stall_seconds`.
        Unavailable: Redis could not be reached, or refuses.
        OutcomeUnknown: commands were sent, and no attempt was answered.
    """
    tickets = sender.no_tickets(keep=keep)
    begun: Begun | None = None
    async with aclosing(async_chunks_of(commands, tickets.store_id, partitions)) as chunks:
        while True:
            try:
                chunk = await anext(chunks, None)
            except Exception:
                # What came before the bad command is accepted before the caller hears of it.
                await _complete(sender, begun, tickets, stall_seconds, on_progress)
                raise
            except BaseException:
                # Who is interrupted waits for nothing more.
                await sender.abandon(begun)
                raise
            await _complete(sender, begun, tickets, stall_seconds, on_progress)
            if chunk is None:
                return tickets
            begun = await sender.begin(sender.enqueue_next(chunk, keep=keep), deadline_in(stall_seconds))


async def _complete(
    sender: AsyncSender,
    begun: Begun | None,
    tickets: Tickets,
    stall_seconds: float,
    on_progress: Callable[[int], None] | None,
) -> None:
    if begun is None:
        return
    try:
        await sender.finish(begun, stall_seconds, accepted_before=len(tickets))
    except CreditlaneError as error:
        raise with_progress(error, len(tickets) + begun.enqueue.accepted) from error
    tickets.append(begun.enqueue)
    if on_progress is not None:
        on_progress(len(tickets))
