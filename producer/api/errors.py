"""The one error body, every code in it with its status, and what is made of each error that is raised."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ...schemas.commands import WITHOUT_NUL, WITHOUT_NUL_OR_EMPTY
from ...schemas.errors import (
    ConfigurationError,
    CreditlaneError,
    InvalidCommand,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    TooLarge,
    TooSlow,
    UnsupportedEncoding,
    UpgradeUnfinished,
)
from ...schemas.identifiers import ACCOUNT_ID_PATTERN
from ...schemas.results import ErrorDetail
from ...schemas.roles import DeniedByRole
from .models.ledger import AMOUNT_OR_ZERO_PATTERN, AMOUNT_PATTERN

log: logging.Logger = logging.getLogger(__name__)

COMMANDS_PATH = "/v1/customer-credits/commands"
REPLAY_HEADER = "X-Idempotent-Replay"
#: How long a client should wait before it tries again, in seconds, by code.
RETRY_SECONDS = {"lane_full": 1.0, "unavailable": 2.0, "timeout": 2.0, "upgrade_unfinished": 10.0}
#: Fields that one answer says something of.
MAX_NAMED_FIELDS = 20
#: Characters of the name of a field that are repeated; clients choose the names of unknown ones.
MAX_PATH_CHARACTERS = 200
NOT_FOUND = "not_found"
NOTHING_HERE = "There is nothing of this id in your store; check the id."
#: Said of a command that is accepted, and whose result did not come or cannot be shown.
ACCEPTED = (
    "The command is accepted and its result is not known yet; ask for it at `Location`, "
    "or send the same request again under the same key."
)

#: Every code of an error body, with its status and what it means.
CODES: dict[str, tuple[int, str]] = {
    "validation_error": (400, "The request breaks a rule; `param` names the field, `message` the rule."),
    "unauthorized": (401, "The header `x-api-key` is missing, there twice, or not a valid key."),
    NOT_FOUND: (404, NOTHING_HERE),
    "method_not_allowed": (405, "This path does not take this method."),
    "too_slow": (408, "The body did not come in time; nothing was accepted, send the request again."),
    "account_name_taken": (409, "The customer has an open account of this name; choose another or close that one."),
    "account_exists": (409, "An account with this id is open already."),
    "account_frozen": (409, "The account is frozen; unfreeze it first."),
    "account_not_frozen": (409, "The account is not frozen, so there is nothing to unfreeze."),
    "account_closed": (409, "The account is closed, which is final; open a new one."),
    "account_overdrawn": (409, "The account is below zero; credit what it lacks, then close it."),
    "idempotency_key_mismatch": (409, "The idempotency key was used for another request; send a new key."),
    "credit_limit_in_use": (409, "The account uses more of its credit limit than that; credit what it lacks first."),
    "reversal_not_reversible": (409, "The transaction is itself a reversal, which cannot be reversed."),
    "account_has_holds": (409, "The account has open holds; capture or void them, then close it."),
    "too_many_holds": (409, "The account has as many open holds as it may have; capture or void some first."),
    "hold_captured": (409, "The hold is used up: it was captured for the last time."),
    "hold_voided": (409, "The hold was voided, which is final; hold the amount again."),
    "hold_expired": (409, "The hold has expired and what was left is released; hold the amount again, or debit it."),
    "reversal_not_divisible": (409, "The transaction has several entries and can only be reversed as a whole."),
    "already_reversed": (409, "The transaction is reversed already, and nothing is left of it."),
    "webhook_disabled": (409, "The endpoint is disabled, so nothing is sent to it; enable it first."),
    "webhook_limit_reached": (409, "The store has as many endpoints as it may have; delete one first."),
    "too_large": (413, "The body is larger than the server takes."),
    "unsupported_encoding": (415, "The body is compressed; send it as it is, without `Content-Encoding`."),
    "insufficient_balance": (422, "The balance does not cover the amount; add credits, or take less under a new key."),
    "reversal_exceeds_original": (
        422,
        "The amount is more than is left of the transaction; the message says how much.",
    ),
    "max_balance_exceeded": (422, "The credit would take the account above its maximum balance; credit less."),
    "unbalanced_transaction": (422, "Debits do not equal credits; correct the amounts and send a new key."),
    "capture_exceeds_hold": (422, "The capture is above what is left of the hold; capture less, or allow the overage."),
    "expires_at_out_of_range": (
        422,
        "The end of the hold is not within 366 days after it was decided; choose another.",
    ),
    "lane_full": (429, "The account's lane is full and accepted nothing; try again after `Retry-After` seconds."),
    "rate_limited": (429, "Too many requests; try again after `Retry-After` seconds."),
    "internal_error": (500, "A defect of the server; the request id finds it in the log."),
    "dead_lettered": (500, "The command could not be decided and waits for an operator; nothing has moved."),
    "unavailable": (503, "Redis or Postgres cannot be reached; nothing was accepted, send the same request again."),
    "upgrade_unfinished": (
        503,
        "An upgrade is under way, and this waits for its end; nothing was done, send the same request again.",
    ),
    "timeout": (503, "The outcome is not known yet; send the same request again under the same key, for one effect."),
}

#: Codes that differ in the ledger and not in the API: a foreign id and an unknown one are answered alike.
_SAME_CODES = {
    "account_not_found": NOT_FOUND,
    "transaction_not_found": NOT_FOUND,
    "hold_not_found": NOT_FOUND,
    "webhook_not_found": NOT_FOUND,
}
#: The field that a rejection is about.
_PARAMS = {
    NOT_FOUND: "id",
    "account_name_taken": "name",
    "account_frozen": "id",
    "account_not_frozen": "id",
    "account_closed": "id",
    "account_overdrawn": "id",
    "idempotency_key_mismatch": "idempotency_key",
    "reversal_not_reversible": "transaction_id",
    "reversal_not_divisible": "amount",
    "already_reversed": "transaction_id",
    "reversal_exceeds_original": "amount",
    "insufficient_balance": "amount",
    "credit_limit_in_use": "amount",
    "max_balance_exceeded": "amount",
    "unbalanced_transaction": "entries",
    "account_has_holds": "id",
    "too_many_holds": "id",
    "hold_captured": "id",
    "hold_voided": "id",
    "hold_expired": "id",
    "capture_exceeds_hold": "amount",
    "expires_at_out_of_range": "expires_at",
}
#: What a pattern asks for, in words.
_WORDS_OF_PATTERNS: Mapping[str | None, str] = {
    WITHOUT_NUL: "must not contain NUL",
    WITHOUT_NUL_OR_EMPTY: "must not contain NUL",
    AMOUNT_PATTERN: 'must be a whole number from 1, as a string of digits such as "250"',
    AMOUNT_OR_ZERO_PATTERN: 'must be a whole number from 0, as a string of digits such as "250"',
    ACCOUNT_ID_PATTERN: "must be the id of an account, cca_ and 32 characters",
}
#: Codes for what the framework refuses by itself; anything else below 500 breaks a rule.
_CODES_OF_STATUS = {404: NOT_FOUND, 405: "method_not_allowed", 401: "unauthorized", 413: "too_large"}
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Problem(Exception):
    """Ends a request with an error body."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        command_id: str | None = None,
    ) -> None:
        status, default = CODES[code]
        self.status: int = status
        self.code = code
        self.message: str = _encodable(message or default)
        self.param: str | None = _encodable(param or _PARAMS.get(code) or "") or None
        self.headers: dict[str, str] = dict(headers or {})
        #: Of a command that is accepted all the same: where its result can be asked for.
        self.command_id = command_id
        if command_id is not None:
            self.headers["Location"] = f"{COMMANDS_PATH}/{command_id}"
        super().__init__(self.message)


def _encodable(text: str) -> str:
    """Return the text with escapes for the halves of characters that JSON can spell, and that no answer can have."""
    return text.encode(errors="backslashreplace").decode()


def public_code(code: str) -> str:
    """Return the code that callers get for an error's own."""
    return _SAME_CODES.get(code, code)


def not_found(param: str = "id") -> Problem:
    """Return what every unknown, malformed or foreign id is answered with."""
    return Problem(NOT_FOUND, param=param)


def problem_of_rejection(error: ErrorDetail, *, replayed: bool = False) -> Problem:
    """Return the problem for a command that the ledger decided against."""
    code = public_code(error.code)
    if code not in CODES:
        code = "internal_error"
    message = None if code in {NOT_FOUND, UpgradeUnfinished.code} else error.message
    headers = {REPLAY_HEADER: "true"} if replayed else {}
    if retry_after := RETRY_SECONDS.get(code):
        headers["Retry-After"] = str(max(1, round(retry_after)))
    return Problem(code, message, headers=headers)


def problem_of(error: CreditlaneError) -> Problem:
    """Return the problem for an error of the producer."""
    code = public_code(error.code)
    if isinstance(error, ConfigurationError):
        # To send the request again helps as soon as the server can be reached, but not before somebody grants rights.
        code = "internal_error" if isinstance(error, DeniedByRole) else "unavailable"
    if isinstance(error, Rejected):
        return problem_of_rejection(ErrorDetail(code=error.code, message=error.message))
    # What says where it cannot connect names hosts, so only these are answered in their own words.
    message = (
        error.message
        if isinstance(error, InvalidCommand | RateLimited | TooLarge | TooSlow | UnsupportedEncoding)
        else None
    )
    ticket = error.ticket if isinstance(error, OutcomeUnknown) else None
    retry_after = error.retry_after if isinstance(error, RateLimited) else RETRY_SECONDS.get(code)
    return Problem(
        code if code in CODES else "internal_error",
        message if ticket is None else ACCEPTED,
        param=error.field if isinstance(error, InvalidCommand) else None,
        headers={"Retry-After": str(max(1, round(retry_after)))} if retry_after else None,
        command_id=None if ticket is None else str(ticket),
    )


def problem_of_fields(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the problem for fields that break a rule, as pydantic names them. The input is not repeated."""
    lines = [f"{_path_of(item) or 'body'}: {_rule_of(item)}" for item in errors[:MAX_NAMED_FIELDS]]
    if len(errors) > MAX_NAMED_FIELDS:
        lines.append(f"and {len(errors) - MAX_NAMED_FIELDS} more")
    return Problem("validation_error", "; ".join(lines), param=_path_of(errors[0]) or None)


def _rule_of(item: Mapping[str, Any]) -> str:
    """Return which rule was broken, in words where pydantic shows a pattern."""
    context = item.get("ctx", {})
    if item["type"] == "json_invalid" and item["loc"]:
        # The framework's, which says where; pydantic's own has that in its message.
        return f"is no JSON: {context['error']} at character {item['loc'][-1] + 1}"
    pattern = context.get("pattern") if item["type"] == "string_pattern_mismatch" else None
    return _WORDS_OF_PATTERNS.get(pattern, str(item["msg"]))


def _path_of(item: Mapping[str, Any]) -> str:
    location = item["loc"]
    if item["type"] == "json_invalid":
        return ""
    parts = location[1:] if location and location[0] in {"body", "query", "path", "header"} else location
    path = ".".join(str(part) for part in parts)
    return path if len(path) <= MAX_PATH_CHARACTERS else f"{path[:MAX_PATH_CHARACTERS]}…"


def request_id_of(request: Request) -> str:
    """Return the id under which the log knows this request."""
    found = getattr(request.state, "request_id", None)
    if found is None:
        found = request.state.request_id = f"req_{uuid4().hex}"
    return str(found)


def detail_of(problem: Problem) -> dict[str, Any]:
    """Return what says what went wrong, without the request: also the error of a line or of a polled command."""
    kind = _TYPES.get(problem.status) or ("api_error" if problem.status >= 500 else "invalid_request_error")  # noqa: PLR2004
    return {"type": kind, "code": problem.code, "message": problem.message, "param": problem.param}


def error_answer(request: Request, problem: Problem) -> JSONResponse:
    """Return the response that says what the problem is."""
    return JSONResponse(error_body(problem, request_id_of(request)), problem.status, headers=problem.headers)


def error_body(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the one error body, of a request that has this id."""
    detail = {**detail_of(problem), "request_id": request_id}
    if problem.command_id is not None:
        detail["command_id"] = problem.command_id
    return {
        "error": detail,
        "message": [problem.message],
        "status": problem.status,
        "trace_id": _trace_id_of(request_id),
        "timestamp": time.time_ns() // 1_000_000,
    }


def _trace_id_of(request_id: str) -> str:
    try:
        return str(UUID(hex=request_id.removeprefix("req_")))
    except ValueError:
        return str(uuid4())


def add_error_handlers(app: FastAPI) -> None:
    """Let every error, whoever raises it, end in the one error body."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(CreditlaneError, _on_creditlane_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_defect)


async def refusal_answer(request: Request, error: Problem | CreditlaneError) -> JSONResponse:
    """Return the response that a handler would give: for what is answered around the framework."""
    return await (_on_problem if isinstance(error, Problem) else _on_creditlane_error)(request, error)


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    return error_answer(request, error if isinstance(error, Problem) else Problem("internal_error"))


async def _on_creditlane_error(request: Request, error: Exception) -> JSONResponse:
    problem = problem_of(error if isinstance(error, CreditlaneError) else CreditlaneError())
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request %s ends in %s: %s", request_id_of(request), problem.code, error)
    return error_answer(request, problem)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    return error_answer(request, problem_of_fields(errors) if errors else Problem("validation_error"))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return error_answer(request, Problem("internal_error"))
    problem = Problem(_CODES_OF_STATUS.get(status, "validation_error"))
    if status not in _CODES_OF_STATUS:
        problem.message = "The body cannot be read; send JSON in UTF-8."
    elif status == HTTPStatus.NOT_FOUND:
        problem.message = "There is no such path; /docs shows those there are."
    problem.headers = dict(getattr(error, "headers", None) or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        problem.headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    return error_answer(request, problem)


def _allowed_methods(request: Request) -> set[str]:
    """Return the methods of every route of this path; the framework names those of the first one only."""
    methods: set[str] = set()
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            methods.add(method)
    return methods | {"HEAD"} if "GET" in methods else methods


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    log.error("request %s met a defect", request_id_of(request), exc_info=error)
    return error_answer(request, Problem("internal_error"))
