"""Carries requests out: with the blocking client, the asyncio client, over HTTP, and many at once."""

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from creditlane import AsyncClient, Client
from creditlane.schemas.accounts import Entry
from creditlane.schemas.commands import (
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    Reverse,
    Unfreeze,
    Void,
)
from creditlane.schemas.tickets import Ticket

from . import outcomes
from .records import COMMANDS, Outcome, Request

#: Entries that are read at a time.
ENTRIES = 5
#: How long a response may take at all, in seconds: far more than it may, so that what takes too long is measured.
DEADLINE_SECONDS = 120.0
#: Pause after a request that did not reach the API, in seconds.
PAUSE_SECONDS = 0.2
_PATH = "/v1/customer-credits"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: dict[str, type[Command]] = {
    "credit": Credit,
    "debit": Debit,
    "freeze": Freeze,
    "unfreeze": Unfreeze,
    "close": Close,
}
_USES_OF_HOLD: dict[str, type[Command]] = {"capture": Capture, "void": Void, "extend": Extend}


class Caller(Protocol):
    """Carries out one request and returns what it came to, whatever happens."""

    def __call__(self, request: Request) -> Outcome: ...


def command_of(request: Request) -> Command:
    """Return the command that the request asks for."""
    op, key = request["op"], request.get("key")
    if op == "post":
        return Post(idempotency_key=key, reference=request["reference"], entries=legs_of(request))
    if op == "open_account":
        return OpenAccount(
            idempotency_key=key,
            account_id=request["account"],
            customer_id=request["customer"],
            name=request["name"],
            initial_balance=request["initial_balance"],
        )
    if op == "reverse":
        return Reverse(account_id=request["account"], transaction_id=request["transaction"])
    if op == "hold":
        names = {"amount": request["amount"], "reference": request["reference"]}
        return Hold(account_id=request["account"], idempotency_key=key, expires_in_seconds=request["seconds"], **names)
    if op in _USES_OF_HOLD:
        return _USES_OF_HOLD[op](hold_id=request["hold"], idempotency_key=key, **use_of_hold(request))
    fields = {name: request[name] for name in ("amount", "reference") if name in request} | options_of(request)
    return _KINDS[op](account_id=request["account"], idempotency_key=key, **fields)


def options_of(request: Request) -> dict[str, bool]:
    """Return what is asked for of a movement beside its amount, by the names that commands and bodies have for it."""
    names = {"partial": "allow_partial", "dry": "dry_run"}
    return {name: True for own, name in names.items() if request.get(own)}


def use_of_hold(request: Request) -> dict[str, Any]:
    """Return what is asked for of a hold, by the names that commands and bodies have for it."""
    names = {"amount": "amount", "final": "final", "overage": "allow_overage", "seconds": "expires_in_seconds"}
    return {name: request[own] for own, name in names.items() if request.get(own) is not None}


def legs_of(request: Request) -> tuple[dict[str, Any], ...]:
    """Return the entries of a post."""
    return tuple(
        {"account_id": account, "side": side, "amount": amount} for account, side, amount in request.get("legs", ())
    )


def call_of(client: Client | AsyncClient, request: Request) -> tuple[Callable[..., Any], tuple[Any, ...], Request]:
    """Return the method of the client that carries out the request, with its arguments."""
    op, account = request["op"], request.get("account")
    if request.get("enqueue"):
        return client.enqueue, (command_of(request),), {}
    if op not in COMMANDS:
        return _reading_call_of(client, request)
    options = {"idempotency_key": request.get("key")}
    options |= {name: request[name] for name in ("reference", "name", "initial_balance") if name in request}
    options |= options_of(request)
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Request]] = {
        "credit": (client.credit, (account, request.get("amount")), options),
        "debit": (client.debit, (account, request.get("amount")), options),
        "post": (client.post, (legs_of(request),), options),
        "open_account": (client.open_account, (), options | {"customer_id": request.get("customer")}),
        "reverse": (client.reverse, (account, request.get("transaction")), {}),
        "freeze": (client.freeze, (account,), options),
        "unfreeze": (client.unfreeze, (account,), options),
        "close": (client.close_account, (account,), options),
        "hold": (
            client.hold,
            (account, request.get("amount")),
            options | {"expires_in_seconds": request.get("seconds")},
        ),
        "capture": (client.capture, (request.get("hold"),), options | use_of_hold(request)),
        "void": (client.void, (request.get("hold"),), options),
        "extend": (client.extend, (request.get("hold"),), options | use_of_hold(request)),
    }
    return calls[op]


def _reading_call_of(
    client: Client | AsyncClient, request: Request
) -> tuple[Callable[..., Any], tuple[Any, ...], Request]:
    op, account = request["op"], request.get("account")
    if op == "wait":
        return client.wait, (request["ticket"],), {}
    if op == "read_balance":
        return client.balance, (account,), {"after": request.get("ticket")}
    if op == "read_account":
        return client.account, (account,), {}
    return client.entries, (account,), {"limit": ENTRIES}


def outcome_of(request: Request, answer: Any) -> Outcome:
    """Return the outcome that the answer of a client's method gives."""
    if isinstance(answer, Ticket):
        return {"kind": "accepted", "ticket": str(answer)}
    if request["op"] == "read_balance":
        return {"kind": "read", "balance": answer}
    if request["op"] == "read_entries":
        newest: Entry | None = answer[0] if answer else None
        return outcomes.of_newest_entry(newest and newest.id, newest.balance_after if newest else 0)
    if request["op"] in {"read_account", "open_account", "freeze", "unfreeze", "close"}:
        return outcomes.of_account(answer, kind="read" if request["op"] == "read_account" else "applied")
    if request["op"] in {"hold", "void", "extend"}:
        return {"kind": "applied", "hold": answer.id}
    return outcomes.of_result(answer)


class BlockingCaller:
    """The blocking client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, request: Request) -> Outcome:
        try:
            method, arguments, options = call_of(self._client, request)
            answer = method(*arguments, **options)
            return outcome_of(request, list(answer) if request["op"] == "read_entries" else answer)
        except Exception as error:  # noqa: BLE001 - what is raised is what is judged
            return outcomes.of_error(request, error)


class AsyncCaller:
    """The asyncio client."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def __call__(self, request: Request) -> Outcome:
        try:
            method, arguments, options = call_of(self._client, request)
            answer = method(*arguments, **options)
            if request["op"] == "read_entries":
                return outcome_of(request, [entry async for entry in answer])
            awaitable: Awaitable[Any] = answer
            return outcome_of(request, await awaitable)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - what is raised is what is judged
            return outcomes.of_error(request, error)


class HttpCaller:
    """The API, over one connection that is made anew after each failure."""

    def __init__(self, url: str, key: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=DEADLINE_SECONDS)
        self._key = key
        self._timeout = timeout

    def __call__(self, request: Request) -> Outcome:
        method, path, body = _http_of(request, self._timeout)
        headers = {"x-api-key": self._key}
        if request.get("enqueue"):
            headers["Prefer"] = "respond-async"
        if request["op"] in {"freeze", "unfreeze", "close", "void"}:
            headers["Idempotency-Key"] = request["key"]
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            status, received, answer = self.exchange(method, path, headers, None if body is None else json.dumps(body))
            return outcomes.of_response(request, status, received, json.loads(answer))
        except (OSError, http.client.HTTPException) as error:
            # The server or the way to it was lost: what became of the request is not known.
            self._connection.close()
            # A server that is not there would be asked a thousand times a second.
            time.sleep(PAUSE_SECONDS)
            return {"kind": "unknown", "error": repr(error)}
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is what is judged
            self._connection.close()
            return {"kind": "error", "error": repr(error)[:1_000]}

    def close(self) -> None:
        self._connection.close()

    def batch(self, commands: list[Request]) -> Outcome:
        """Send the commands as lines of one request."""
        lines = "".join(f"{json.dumps(_line_of(request))}\n" for request in commands)
        headers = {"x-api-key": self._key, "content-type": "application/x-ndjson"}
        try:
            status, received, body = self.exchange("POST", f"{_PATH}/commands", headers, lines)
            if status != 200:
                return outcomes.of_response({"op": "batch"}, status, received, json.loads(body))
            return {"kind": "batch", "answers": [outcomes.of_line(json.loads(line)) for line in body.splitlines()]}
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return {"kind": "unknown", "error": repr(error)}

    def exchange(
        self, method: str, path: str, headers: dict[str, str], body: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def _http_of(request: Request, timeout: float) -> tuple[str, str, Request | None]:
    """Return method, path and body of the request."""
    op, account = request["op"], request.get("account")
    own = f"{_PATH}/accounts/{account}"
    if op not in COMMANDS:
        return "GET", _read_path(request, own, timeout), None
    paths = {
        "reverse": f"{_PATH}/transactions/{request.get('transaction')}/reverse",
        "post": f"{_PATH}/transactions",
        "open_account": f"{_PATH}/accounts",
        "hold": f"{own}/holds",
    }
    if op in _USES_OF_HOLD:
        paths[op] = f"{_PATH}/holds/{request['hold']}/{op}"
    return "POST", paths.get(op, f"{own}/{op}"), _body_of(request)


def _body_of(request: Request) -> Request | None:
    op = request["op"]
    if op in {"freeze", "unfreeze", "close", "reverse", "void"}:
        return None
    if op in {"post", "open_account", "hold"}:
        return _line_of(request, with_kind=False)
    asked = use_of_hold(request) if op in _USES_OF_HOLD else {name: request[name] for name in ("amount", "reference")}
    texts = {name: str(value) if name == "amount" else value for name, value in asked.items()}
    return texts | options_of(request) | {"idempotency_key": request["key"]}


def _read_path(request: Request, own: str, timeout: float) -> str:
    op = request["op"]
    if op == "wait":
        return f"{_PATH}/commands/{quote(request['ticket'])}?{urlencode({'wait': timeout})}"
    if op == "read_at":
        at = _EPOCH + timedelta(microseconds=request["at_us"])
        return f"{own}/balance?{urlencode({'at': at.isoformat(timespec='milliseconds')})}"
    if op == "read_balance":
        return f"{own}/balance"
    if op == "read_entries":
        return f"{own}/entries?limit={ENTRIES}"
    return own


def _line_of(request: Request, *, with_kind: bool = True) -> Request:
    """Return the command as a line of the batch endpoint, or as a body."""
    line: Request = {"kind": request["op"]} if with_kind else {}
    line["idempotency_key"] = request["key"]
    if request["op"] == "post":
        legs = [{**leg, "amount": str(leg["amount"])} for leg in legs_of(request)]
        return line | {"reference": request["reference"], "entries": legs}
    if request["op"] == "open_account":
        names = {"customer_id": request["customer"], "name": request["name"]}
        return line | names | {"initial_balance": str(request["initial_balance"])}
    if with_kind or request["op"] != "hold":
        line["account_id"] = request["account"]
    if request["op"] == "hold":
        line["expires_in_seconds"] = request["seconds"]
    if "amount" in request:
        line |= {"amount": str(request["amount"]), "reference": request["reference"]} | options_of(request)
    return line
