"""Writes: a command goes on its lane; the request waits for its published result, or is answered with its ticket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from ...lanes.encoding import MAX_COMMAND_BYTES
from ...schemas.commands import Command
from ...schemas.errors import InvalidCommand, Unavailable
from ...schemas.results import Result
from ...schemas.tickets import Ticket
from ..client.chunks import Chunk, chunk_of, generated_key, make_command
from ..client.resolve import unread
from .auth import Store
from .connections import Connections
from .errors import COMMANDS_PATH, REPLAY_HEADER, Problem, problem_of_rejection
from .idempotency_header import KEY_FIELD, KEY_HEADER, key_of_header
from .middleware.request_limits import waiting_slot
from .models.ledger import QueuedCommand

_CommandT = TypeVar("_CommandT", bound=Command)


class Writes:
    """Sends the commands of one request, as its store."""

    def __init__(self, request: Request, store: Store, key: str | None, prefer: str | None) -> None:
        connections: Connections = request.app.state.connections
        self._request = request
        self._session = connections.session
        self._timeout = connections.settings.wait_timeout_seconds
        self._store = store
        self._header_key = key
        self._respond_at_once = _asks_for_no_wait(prefer)
        self._ticket: Ticket | None = None

    def key(self, body_key: str | None, purpose: str | None = None) -> str:
        """Return the idempotency key of the request, from its body or its header; or a new one for this purpose.

        Raises:
            Problem: both are there and differ, or there is none and no purpose.
        """
        given = body_key if body_key is not None else self._header_key
        if given is None:
            if purpose is not None:
                return generated_key(purpose)
            message = f"{KEY_FIELD}: is required, in the body or as the header {KEY_HEADER}"
            raise Problem("validation_error", message, param=KEY_FIELD)
        if self._header_key not in {None, given}:
            message = f"{KEY_FIELD}: the body and the header {KEY_HEADER} must agree; send one of them"
            raise Problem("validation_error", message, param=KEY_FIELD)
        return given

    def read_header(self) -> None:
        """Let the key in the header count, in an operation that has one only at times.

        Raises:
            Problem: there are several, or it is no key.
        """
        self._header_key = key_of_header(self._request)

    async def decide(self, kind: type[_CommandT], **fields: Any) -> Result | Ticket:
        """Send a command and return its applied result, or its ticket if the request does not want to wait.

        Raises:
            Problem: the ledger decided against it.
            OutcomeUnknown: it is accepted and has no result in good time, or whether it was accepted is not known.
            CreditlaneError: it was not accepted.
        """
        command = make_command(kind, **fields)
        deadline = self._request.state.read_deadline.deadline_of_write(self._timeout)
        if self._respond_at_once:
            chunk = await self._chunk_of(command, deadline)
            return await self._session.send(chunk, self._session.numbers.take(), deadline, keep=True)
        with waiting_slot(self._request):
            chunk = await self._chunk_of(command, deadline)
            self._ticket, outcome = await self._session.send_and_wait(
                chunk, self._timeout, send_by=deadline, wait_until=deadline
            )
        if outcome.error is not None:
            raise problem_of_rejection(outcome.error, replayed=outcome.replayed)
        return outcome

    @contextmanager
    def reading_back(self) -> Iterator[None]:
        """Let what cannot be read after the command is applied not be taken for a command that was not accepted.

        Raises:
            OutcomeUnknown: instead of Unavailable; it has the ticket to ask with.
        """
        try:
            yield
        except Unavailable as error:
            if self._ticket is None:
                raise
            raise unread(self._ticket) from error

    async def _chunk_of(self, command: Command, deadline: float) -> Chunk:
        chunk = chunk_of(command, self._store.public_id, await self._session.partitions(deadline))
        if len(chunk.encoded[0]) > MAX_COMMAND_BYTES:
            raise InvalidCommand(f"The command is larger than the {MAX_COMMAND_BYTES} bytes that a lane takes.")
        return chunk


def _asks_for_no_wait(prefer: str | None) -> bool:
    preferences = (prefer or "").replace(";", ",").split(",")
    return "respond-async" in {preference.strip().lower() for preference in preferences}


def body_answer(body: BaseModel, status: int = 200, *, replayed: bool = False) -> Response:
    """Return the response with this body. It says so if the body is the answer to an earlier request."""
    headers = {REPLAY_HEADER: "true"} if replayed else None
    return Response(body.model_dump_json(), status, headers, media_type="application/json")


def queued_answer(ticket: Ticket) -> Response:
    """Return the response for a command that is accepted and not waited for."""
    body = QueuedCommand(id=str(ticket))
    return JSONResponse(body.model_dump(), 202, {"Location": f"{COMMANDS_PATH}/{body.id}"})
