"""What the OpenAPI document says of responses, so that every operation says everything it does."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ....schemas.kinds import Kind
from ..errors import CODES, REPLAY_HEADER, Problem, detail_of, public_code
from ..models.ledger import COMMAND_EXAMPLE, ErrorBody, QueuedCommand

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
_WRITING = (
    "too_slow",
    "too_large",
    "unsupported_encoding",
    "lane_full",
    "timeout",
    "dead_lettered",
    "upgrade_unfinished",
)

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
        "content": {"application/json": {"examples": {code: {"value": example(code)} for code in codes}}},
    }


def example(code: str) -> dict[str, Any]:
    """Return an error body with this code."""
    problem = Problem(code)
    return {
        "error": {**detail_of(problem), "request_id": _REQUEST_ID},
        "message": [problem.message],
        "status": problem.status,
        "trace_id": "6d1f0d3f-9a3c-4c0f-8f6c-3a0f5b1d2e3f",
        "timestamp": 1706889600000,
    }
