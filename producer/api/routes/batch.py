"""The batch endpoint: one command a line in, one answer a line out, in order, however many there are.

Lines are read, judged and encoded while those before them are on their way to Redis; answers are sent while both goes
on. Nothing waits for results, and no timer gathers lines: each part is what has come while the last one was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from ....lanes.deadlines import deadline_in
from ....schemas.errors import CreditlaneError, LaneFull, OutcomeUnknown, Unauthorized, Unavailable
from ....schemas.settings import Settings
from ....schemas.tickets import Ticket
from ...client.chunks import Chunk
from ...client.enqueue import ChunkEnqueue
from .. import batch_lines
from ..auth import Store, check_again
from ..batch_lines import LineSplitter, command_of
from ..connections import Connections
from ..deps import RequestStore
from ..errors import COMMANDS_PATH, Problem, detail_of, problem_of
from ..fair_session import FairSession
from ..idempotency_header import refuse_key_header
from ..middleware.fair_batches import FairBatches, PartSize, Pause
from ..middleware.request_limits import Limits
from ..openapi.batch import BATCH_REQUEST, BATCH_RESPONSES
from ..response_spool import Spool
from ..time_slices import TimeSlices

#: After so many wrong lines of a batch others get their turn for so long, in seconds: to say what is wrong with a line
#: costs many times what a right one does, and is of no use by the thousand.
WRONG_LINES, WRONG_PAUSE_SECONDS = 50, 0.02
#: How many turns of the event loop without a new line mean that the client has no more at hand.
QUIET_TURNS = 3
MEDIA_TYPE = "application/x-ndjson"
#: How often the key is checked while no line comes, in seconds.
KEY_CHECK_SECONDS = 1.0

#: Raises Unauthorized once the key of the request is revoked.
CheckKey = Callable[[], Awaitable[None]]

_encode = msgspec.json.Encoder().encode

router: APIRouter = APIRouter(tags=["Commands"])


@router.post(
    COMMANDS_PATH,
    operation_id="enqueueCustomerCreditsCommands",
    summary="Enqueue commands, one a line",
    responses=BATCH_RESPONSES,
    openapi_extra=BATCH_REQUEST,
    response_class=Response,
)
async def enqueue_commands(request: Request, store: RequestStore) -> Response:
    """Accept any number of commands, as newline-delimited JSON, for high-volume metering.

    The answer has a line for each line of the request, in order, while the request is still being sent: `queued` with
    the id to ask for its result, `refused` with the reason, or `unknown` if the line may have been accepted: send it
    again as it was, under the same key. A bad line never spoils its neighbours. Sending everything again under the same
    keys is safe. Once the key is revoked, the next line is refused with `unauthorized` and the answer ends.
    """
    refuse_key_header(request)
    connections: Connections = request.app.state.connections
    session, settings = connections.session, connections.settings
    partitions = await session.partitions(deadline_in(settings.wait_timeout_seconds))
    limits: Limits = request.app.state.limits
    spool = Spool(limits.spool_space, store.public_id)
    return BatchResponse(session, settings, store, partitions, spool, limits, lambda: check_again(request))


class BatchResponse(Response):
    """Reads the request and answers it at the same time, which no ready-made response does."""

    def __init__(
        self,
        session: FairSession,
        settings: Settings,
        store: Store,
        partitions: int,
        spool: Spool,
        limits: Limits,
        check_key: CheckKey,
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._check_key = check_key
        self._spool = spool
        self._slot = limits.batches.slot(store.public_id)
        self._seconds = settings.api_body_seconds
        self._intake = Intake(store.public_id, partitions, settings.api_batch_lines, limits.fair_batches)
        self._dispatch = Dispatch(session, settings, store.public_id, limits.fair_batches, check_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Answer the request.

        Raises:
            Problem, CreditlaneError: nothing of it could be accepted; nothing was answered yet.
        """
        with self._slot:
            reading = asyncio.create_task(self._intake.read(receive))
            try:
                with self._spool as spool:
                    await self._answer(spool, send)
            finally:
                reading.cancel()
                await asyncio.wait((reading,))

    async def _answer(self, spool: Spool, send: Send) -> None:
        part = await self._next()
        if part is None:
            raise Problem("validation_error", "The body has no line; send one command as JSON a line.")
        # Where Redis cannot be reached from the start, the whole request is answered with that.
        spool.put(await self._dispatch.first(part))
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with asyncio.TaskGroup() as tasks:
            pouring = tasks.create_task(_pour(spool, send))
            try:
                while not self._dispatch.is_key_revoked and await self._has_room(spool):
                    part = await self._next()
                    if part is None:
                        break
                    spool.put(await self._dispatch.next(part))
            except Unauthorized as error:
                # What stands on a lane is answered; the line that would come next is the first one refused.
                spool.put(_refused(self._intake.next_line, problem_of(error)))
            finally:
                spool.end()
            await self._read_out(spool, pouring)

    async def _read_out(self, spool: Spool, pouring: asyncio.Task[None]) -> None:
        """Wait until the client has the rest of the answers, or reads none of them any more."""
        left = None
        while not (await asyncio.wait((pouring,), timeout=self._seconds))[0]:
            if spool.bytes == left:
                pouring.cancel()
                return
            left = spool.bytes

    async def _has_room(self, spool: Spool) -> bool:
        """Return whether there is room for more answers; say in the last one that there is none."""
        if await spool.room(self._seconds):
            return True
        unread = f"The answers were not read for {self._seconds:g} s; read while you send, or send less at once."
        spool.put(_refused(self._intake.next_line, Problem("too_slow", unread)))
        return False

    async def _next(self) -> BatchPart | None:
        """Return the lines that have come, or None after the last; check the key while none come.

        Raises:
            Unauthorized: the key was revoked, and no line waits for an answer.
        """
        coming = asyncio.ensure_future(self._intake.next())
        try:
            while not (await asyncio.wait((coming,), timeout=KEY_CHECK_SECONDS))[0]:
                # While Postgres is away nothing is known of the key, and nothing is sent with it.
                with suppress(Unavailable):
                    await self._check_key()
        except Unauthorized:
            # Lines that came meanwhile are refused each, where they would have been sent.
            if not coming.done():
                raise
        else:
            return await coming
        finally:
            coming.cancel()
        return await coming


async def _pour(spool: Spool, send: Send) -> None:
    while data := await spool.take():
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class BatchPart:
    """Lines that go to Redis together: the commands of those that are some, and what is wrong with the others."""

    def __init__(self, first_line: int, store_id: str, partitions: int, size: PartSize) -> None:
        self.first_line = first_line
        self._size = size
        self.chunk: Chunk = Chunk(store_id, partitions)
        #: By line: its command's position in the chunk, or its problem.
        self.lines: list[int | Problem] = []
        #: Of the commands as they stand on a lane.
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the next line belongs to another part."""
        return len(self.lines) >= self._size.lines or self.bytes >= self._size.bytes


class Intake:
    """Takes the lines off the request and judges them, a little ahead of what is sent."""

    def __init__(self, store_id: str, partitions: int, most_lines: int, turns: FairBatches) -> None:
        self._turns = turns
        self._store_id = store_id
        self._partitions = partitions
        self._most_lines = most_lines
        self._count = 0
        #: Wrong lines since the last pause for them.
        self._wrong = 0
        self._part = self._new_part()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._ended = False

    async def read(self, receive: Receive) -> None:
        """Read the request to its end, or until the client is gone. Waits while a full part is not taken."""
        try:
            splitter, more, slices = LineSplitter(), True, TimeSlices()
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                for line in splitter.feed(message.get("body", b"")):
                    await self._add(line)
                    await slices.give_way()
                more = message.get("more_body", False)
            for line in splitter.finish():
                await self._add(line)
        finally:
            self._ended = True
            self._filled.set()

    async def next(self) -> BatchPart | None:
        """Return the lines that have come, as soon as there are some; None after the last."""
        await self._filled.wait()
        await self._settle()
        part = self._part
        self._part = self._new_part()
        if not self._ended:
            self._filled.clear()
        self._emptied.set()
        return part if part.lines else None

    @property
    def next_line(self) -> int:
        """The number of the line that comes next of those that were not given out."""
        return self._part.first_line

    def _new_part(self) -> BatchPart:
        size = self._turns.part_size(self._store_id)
        return BatchPart(self._count + 1, self._store_id, self._partitions, size)

    async def _settle(self) -> None:
        """Let the lines come that are on their way already: fewer, fuller parts cost less."""
        quiet, before = 0, len(self._part.lines)
        while quiet < QUIET_TURNS and not self._ended and not self._part.is_full:
            await asyncio.sleep(0)
            count = len(self._part.lines)
            quiet, before = (quiet + 1, before) if count == before else (0, count)

    async def _add(self, line: bytes | None) -> None:
        while self._part.is_full:
            self._emptied.clear()
            await self._emptied.wait()
        self._count += 1
        part = self._part
        try:
            ready = command_of(self._acceptable(line), self._store_id)
        except Problem as problem:
            part.lines.append(problem)
            self._wrong += 1
        else:
            part.lines.append(len(part.chunk))
            if ready.dry_run:
                part.chunk.note_dry_run()
            part.bytes += len(ready.encoded)
            part.chunk.put(ready.account_id, ready.idempotency_key, ready.encoded)
        self._filled.set()
        if self._wrong >= WRONG_LINES:
            self._wrong = 0
            await asyncio.sleep(WRONG_PAUSE_SECONDS)

    def _acceptable(self, line: bytes | None) -> bytes:
        if line is None:
            raise batch_lines.too_long()
        if self._count > self._most_lines:
            raise Problem("too_large", f"One request may have {self._most_lines} lines; send the rest in another.")
        return line


class Dispatch:
    """Puts parts on the lanes and says of each line what became of it."""

    def __init__(
        self, session: FairSession, settings: Settings, store_id: str, turns: FairBatches, check_key: CheckKey
    ) -> None:
        self._session = session
        self._turns = turns
        self._check_key = check_key
        self._settings = settings
        self._store_id = store_id
        #: Why nothing more is sent.
        self._failure: CreditlaneError | None = None
        self._has_accepted = False

    @property
    def is_key_revoked(self) -> bool:
        """Whether nothing more is sent because the key does not work any more."""
        return isinstance(self._failure, Unauthorized)

    async def first(self, part: BatchPart) -> bytes:
        """Return the answers to a part, as `next` does, but raise what keeps all of it from being accepted."""
        answers = await self.next(part)
        # Where some of it was accepted, only the lines can say of which.
        if self._failure is not None and not self._has_accepted:
            raise self._failure
        return answers

    async def next(self, part: BatchPart) -> bytes:
        """Return the answers to a part, sent if the key works still, once it is the store's turn.

        Once the key is revoked, or a server cannot be reached, nothing more of the request is tried.
        """
        async with self._turns.turn(self._store_id, self._session.wire) as pause:
            return await self._send(part, pause)

    async def _send(self, part: BatchPart, pause: Pause) -> bytes:
        enqueue = self._session.sender.unannounced(part.chunk)
        # What is not even sent is not accepted, whatever is known of what was sent before.
        refusal: CreditlaneError | None = None if self._failure is None else Unavailable()
        if refusal is None and len(part.chunk):
            try:
                await self._check_key()
                await self._session.sender.deliver(enqueue, self._settings.wait_timeout_seconds, pause)
            except LaneFull as error:
                refusal = error
            except CreditlaneError as error:
                refusal = self._failure = error
            self._has_accepted = self._has_accepted or enqueue.accepted > 0
        return await self._answers(part, enqueue, refusal)

    async def _answers(self, part: BatchPart, enqueue: ChunkEnqueue, refusal: CreditlaneError | None) -> bytes:
        chunk, entries = part.chunk, enqueue.entries
        # What was sent and not answered may stand on its lane: whoever took it for refused would send it under a new
        # key, for a second effect.
        status = "unknown" if isinstance(refusal, OutcomeUnknown) else "refused"
        problem = problem_of(refusal) if refusal else Problem("internal_error")
        answers, slices = [], TimeSlices()
        for number, line in enumerate(part.lines, part.first_line):
            await slices.give_way()
            if isinstance(line, Problem):
                answers.append(_refused(number, line))
            elif entry := entries[line]:
                ticket = Ticket(
                    self._store_id,
                    chunk.accounts[line],
                    chunk.keys[line],
                    entry.decode(),
                    chunk.fingerprints[line],
                    dry_run=line in chunk.dry_runs,
                )
                answers.append(b'{"line":%d,"object":"command","id":"%s","status":"queued"}\n' % (number, _id(ticket)))
            else:
                answers.append(_refused(number, problem, status))
        return b"".join(answers)


def _id(ticket: Ticket) -> bytes:
    return str(ticket).encode()


def _refused(number: int, problem: Problem, status: str = "refused") -> bytes:
    answer: dict[str, Any] = {"line": number, "object": "command", "status": status, "error": detail_of(problem)}
    return _encode(answer) + batch_lines.NEWLINE
