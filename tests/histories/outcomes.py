"""What a call came to, as a plain outcome: from results and errors of the clients, and from responses of the API."""

import re
from datetime import datetime
from typing import Any

from creditlane.schemas.accounts import Account
from creditlane.schemas.errors import (
    AccountNotFound,
    CommandDeadLettered,
    CreditlaneError,
    LaneFull,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Unavailable,
)
from creditlane.schemas.identifiers import position_of
from creditlane.schemas.results import Result

from .records import Outcome, Request

#: Statuses of the API with which it says what the ledger decided.
_REJECTIONS = frozenset({404, 409, 422})
#: Codes that are answered where nothing is decided: what is said of the command with them.
_UNDECIDED = {"timeout": "unknown", "unavailable": "unavailable", "lane_full": "refused", "rate_limited": "refused"}
_AVAILABLE = re.compile(r"has (-?[0-9]+) available, and ([0-9]+) is needed")


def of_result(result: Result) -> Outcome:
    """Return the outcome of a result."""
    if result.status == "queued":
        return {"kind": "accepted"}
    if result.status == "dead_lettered":
        return {"kind": "dead"}
    if result.error is not None:
        return _rejected(result.error.code, result.error.details) | {"replayed": result.replayed}
    position = position_of(result.transaction_id or "")
    is_own = position is not None and position.account_id == result.account_id
    return {
        "kind": "applied",
        "balance": result.balance,
        "transaction": result.transaction_id,
        "seq": position.seq if position is not None and is_own else None,
        "replayed": result.replayed,
        "hold": result.hold_id,
        "shortfall": result.shortfall,
    }


def of_account(account: Account, *, kind: str) -> Outcome:
    """Return what was seen of an account when it was read."""
    return {"kind": kind, "account": account.id, "balance": account.balance, "status": account.status}


def of_error(request: Request, error: Exception) -> Outcome:
    """Return the outcome of an error of a client."""
    if isinstance(error, AccountNotFound) and request["op"].startswith("read"):
        return {"kind": "absent"}
    if isinstance(error, Rejected):
        return _rejected(error.code, error.details)
    if isinstance(error, OutcomeUnknown):
        if "neither on its lane" in error.message:
            return {"kind": "lost", "error": error.message}
        is_accepted = error.ticket is not None and request["op"] != "wait"
        return {"kind": "accepted", "ticket": str(error.ticket)} if is_accepted else {"kind": "unknown"}
    for kind, errors in _KINDS.items():
        if isinstance(error, errors):
            return {"kind": kind, "error": str(error)[:300]}
    return {"kind": "error", "error": f"{type(error).__name__}: {error}"[:1_000]}


_KINDS: dict[str, type[CreditlaneError] | tuple[type[CreditlaneError], ...]] = {
    "unavailable": Unavailable,
    "refused": (LaneFull, RateLimited),
    "dead": CommandDeadLettered,
}


def _rejected(code: str, details: dict[str, Any]) -> Outcome:
    amounts = {name: int(details[name]) for name in ("needed", "available") if name in details}
    return {"kind": "rejected", "code": code} | ({} if "account_id" in details else amounts)


def of_response(request: Request, status: int, headers: dict[str, str], body: Any) -> Outcome:
    """Return the outcome of a response of the API. `http` marks what did not pass through a client of ours."""
    code = body["error"]["code"] if isinstance(body, dict) and "trace_id" in body else None
    return {**_outcome_of(request, status, code, headers, body), "http": status}


def _outcome_of(request: Request, status: int, code: str | None, headers: dict[str, str], body: Any) -> Outcome:
    if status in {200, 201}:
        return _answered(request, headers, body)
    if "location" in headers and (status == 202 or code == "timeout"):
        return {"kind": "accepted", "ticket": headers["location"].rsplit("/", 1)[1]}
    if code in _UNDECIDED:
        return {"kind": _UNDECIDED[code], "error": code}
    if status in _REJECTIONS:
        is_read = request["op"].startswith("read") and status == 404
        return {"kind": "absent"} if is_read else _rejected_response(request, code, headers, body)
    return {"kind": "error", "error": f"status {status}: {body}"[:1_000]}


def _rejected_response(request: Request, code: str | None, headers: dict[str, str], body: Any) -> Outcome:
    outcome: Outcome = {"kind": "rejected", "code": code, "replayed": "x-idempotent-replay" in headers}
    found = _AVAILABLE.search(body["error"]["message"])
    if found and request["op"] == "debit":
        outcome |= {"available": int(found[1]), "needed": int(found[2])}
    return outcome


def _answered(request: Request, headers: dict[str, str], body: Any) -> Outcome:
    op = request["op"]
    if op.startswith("read"):
        return _read(op, body)
    if op == "wait":
        return _polled(body)
    replayed = "x-idempotent-replay" in headers
    if op in {"hold", "void", "extend"}:
        return {"kind": "applied", "hold": body["id"], "replayed": replayed}
    if op in {"open_account", "freeze", "unfreeze", "close"}:
        return {"kind": "applied", "balance": int(body["balance"]), "replayed": replayed}
    first = body["entries"][0]
    seq = int(first["id"][36:], 16)
    answer = {"kind": "applied", "balance": int(first["balance_after"]), "transaction": body["id"], "seq": seq}
    return answer | {"replayed": replayed}


def _read(op: str, body: Any) -> Outcome:
    if op == "read_entries":
        newest = body["data"][0] if body["data"] else None
        return of_newest_entry(newest and newest["id"], int(newest["balance_after"]) if newest else 0)
    read = {"kind": "read", "balance": int(body["balance"])}
    if op == "read_at":
        read["as_of_us"] = _microseconds(body["as_of"])
    if op == "read_account":
        read["status"] = body["status"]
    return read


def _polled(body: Any) -> Outcome:
    if body["status"] == "applied" and body.get("transaction") is None:
        return {"kind": "applied"}
    if body["status"] == "applied":
        first = body["transaction"]["entries"][0]
        return {"kind": "applied", "balance": int(first["balance_after"]), "seq": int(first["id"][36:], 16)}
    if body["status"] == "rejected":
        return {"kind": "rejected", "code": body["error"]["code"]}
    return {"kind": "unknown" if body["status"] == "queued" else "dead"}


def of_newest_entry(entry: str | None, balance: int) -> Outcome:
    """Return what the newest entry of an account says: its very position."""
    return {"kind": "read", "balance": balance, "position": int(entry[36:], 16) if entry else 0}


def of_line(line: dict[str, Any]) -> Outcome:
    """Return the outcome of a line of the batch endpoint's answer."""
    if line["status"] == "queued":
        return {"kind": "accepted", "ticket": line["id"]}
    kind = "unavailable" if line["error"]["code"] in {"unavailable", "lane_full"} else "error"
    if line["error"]["code"] == "timeout":
        kind = "unknown"
    return {"kind": kind, "error": line["error"]["message"][:300]}


def _microseconds(moment: str) -> int:
    whole = datetime.fromisoformat(moment)
    return int(whole.timestamp()) * 1_000_000 + whole.microsecond
