"""What the OpenAPI document says of responses, so that every operation says everything it does."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from ....schemas.kinds import Kind
from ..errors import CODES, REPLAY_HEADER, Problem, detail_of, public_code
from ..models.ledger import COMMAND_EXAMPLE, ErrorBody, QueuedCommand, without_null
from .events import events_sent

#: What the operations are sorted by.
TAGS = [
    {"name": "Accounts", "description": "Open, show and change accounts, and move credits on one of them."},
    {"name": "Transactions", "description": "Move credits between accounts, find what moved, and undo it."},
    {"name": "Commands", "description": "Send many commands at once, and ask what became of one."},
    {"name": "Webhooks", "description": "Say where events are sent to, and see what was sent."},
    {"name": "Events", "description": "What is sent to the URLs of webhooks, and to those that came with commands."},
]
#: Whatever host and port the server has, the document's own.
SERVERS = [{"url": "/", "description": "The server that this document comes from."}]
CONTACT = {"name": "Whoever runs this server"}
LICENSE = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}

_REQUEST_ID = "req_6d1f0d3f9a3c4c0f8f6c3a0f5b1d2e3f"
_HEADER_TEXTS = {
    REPLAY_HEADER: "`true`: the answer is that to an earlier request of this key.",
    "Location": "Where to ask for the command's result.",
    "Retry-After": "After how many seconds to try again.",
    "x-request-id": "The id under which the server's log knows the request.",
}
#: Codes that every operation of a store may answer with.
_COMMON = ("validation_error", "unauthorized", "rate_limited", "internal_error", "unavailable")
#: Those of every operation that puts a command on a lane.
_WRITING = ("too_slow", "too_large", "unsupported_encoding", "lane_full", "timeout", "dead_lettered")

#: The schema of the error body that the framework would send.
_FRAMEWORK_ERROR = "HTTPValidationError"

Responses = dict[int | str, dict[str, Any]]


def reading(model: type[BaseModel], *codes: str) -> Responses:
    """Return the responses of an operation that reads, with these codes beside the common ones."""
    return {200: _success(model), **_errors(*_COMMON, *codes)}


def changing(model: type[BaseModel], *codes: str) -> Responses:
    """Return the responses of an operation that changes what is no part of the books, by itself in Postgres."""
    return reading(model, "timeout", "unsupported_encoding", *codes)


def writing(model: type[BaseModel], status: int, *codes: str) -> Responses:
    """Return the responses of an operation that puts a command on a lane."""
    queued = {
        "model": QueuedCommand,
        "description": "Durably accepted and not waited for, as `Prefer: respond-async` asked. The result can be asked "
        "for at `Location`.",
        "headers": headers("Location", "x-request-id"),
        "content": {"application/json": {"example": {"object": "command", "id": COMMAND_EXAMPLE, "status": "queued"}}},
    }
    return {status: _success(model, REPLAY_HEADER), 202: queued, **_errors(*_COMMON, *_WRITING, *codes, replay=True)}


def deciding(kind: Kind, model: type[BaseModel], *codes: str) -> Responses:
    """Return the responses of an operation that puts a command of this kind on a lane; these codes beside its own."""
    own = (public_code(rejection.code) for rejection in kind.record.rejections)
    return writing(model, kind.record.http_status, *own, *codes)


def headers(*names: str) -> dict[str, Any]:
    """Return the description of these response headers."""
    return {name: {"description": _HEADER_TEXTS[name], "schema": {"type": "string"}} for name in names}


def errors(*codes: str) -> Responses:
    """Return the responses of these codes and of those that every operation has."""
    return _errors(*_COMMON, *codes)


def describe(app: FastAPI) -> None:
    """Let the app's document say all that is so and nothing else, so that clients can be made from it."""
    app.webhooks = events_sent()
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        for section in ("paths", "webhooks"):
            for path in document[section].values():
                for operation in path.values():
                    _correct(operation["responses"])
                    for parameter in operation.get("parameters", ()):
                        # It is there or not: neither a URL nor a header has a null.
                        parameter["schema"] = without_null(parameter["schema"])
        for name in (_FRAMEWORK_ERROR, "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual extends the document


def _correct(responses: dict[str, Any]) -> None:
    """What breaks a rule is 400 here, not the framework's 422; and an example has what is null in it."""
    if _FRAMEWORK_ERROR in str(responses.get("422")):
        del responses["422"]
    for response in responses.values():
        # The framework leaves out every null of the document.
        examples = response.get("content", {}).get("application/json", {}).get("examples", {})
        examples.update({code: {"value": _example(code)} for code in examples})


def _success(model: type[BaseModel], *names: str) -> dict[str, Any]:
    return {"model": model, "description": "Done.", "headers": headers(*names, "x-request-id")}


def _errors(*codes: str, replay: bool = False) -> Responses:
    by_status: dict[int, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(CODES[code][0], []).append(code)
    return {status: _error(status, codes, replay=replay) for status, codes in sorted(by_status.items())}


def _error(status: int, codes: list[str], *, replay: bool) -> dict[str, Any]:
    names = ["x-request-id"]
    if status in {429, 503}:
        names.append("Retry-After")
    if "timeout" in codes:
        names.append("Location")
    if replay and status in {409, 422}:
        names.append(REPLAY_HEADER)
    return {
        "model": ErrorBody,
        "description": " ".join(f"`{code}`: {CODES[code][1]}" for code in codes),
        "headers": headers(*names),
        "content": {"application/json": {"examples": {code: {"value": _example(code)} for code in codes}}},
    }


def _example(code: str) -> dict[str, Any]:
    problem = Problem(code)
    return {
        "error": {**detail_of(problem), "request_id": _REQUEST_ID},
        "message": [problem.message],
        "status": problem.status,
        "trace_id": "6d1f0d3f-9a3c-4c0f-8f6c-3a0f5b1d2e3f",
        "timestamp": 1706889600000,
    }
