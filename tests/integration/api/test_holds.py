"""Holds over HTTP: their states, codes and bodies, as the document says them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.local.processes import wait_until

from .requests_of import (
    ACCOUNTS,
    COMMANDS,
    DEADLINE_SECONDS,
    HOLDS,
    REPLAY,
    TRANSACTIONS,
    UNKNOWN_ACCOUNT,
    UNKNOWN_HOLD,
    code_of,
    move,
    open_account,
    place_hold,
)

#: What a test needs in which something is decided.
WORKER = pytest.mark.usefixtures("running_worker")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def held_of(api: TestClient, account: dict[str, Any]) -> tuple[str, str, str]:
    body = api.get(f"{ACCOUNTS}/{account['id']}").json()
    return body["balance"], body["held"], body["available"]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@WORKER
def test_a_hold_is_made_shown_and_captured(api: TestClient) -> None:
    """Given a hold, then it is out of what is available; its last capture posts the debit and releases the rest."""
    account = open_account(api, initial_balance="100")
    path = f"{ACCOUNTS}/{account['id']}/holds"
    body = {
        "amount": "60",
        "reference": "call",
        "idempotency_key": "h",
        "expires_in_seconds": 900,
        "metadata": {"a": ""},
    }

    made = api.post(path, json=body)
    again = api.post(path, json=body)

    hold = made.json()
    assert (made.status_code, again.status_code) == (201, 201)
    assert (again.json(), made.headers.get(REPLAY), again.headers.get(REPLAY)) == (hold, None, "true")
    assert hold == {
        "id": hold["id"],
        "account_id": account["id"],
        "status": "open",
        "amount": "60",
        "captured": "0",
        "remaining": "60",
        "reference": "call",
        "metadata": {"a": ""},
        "expires_at": hold["expires_at"],
        "created_at": hold["created_at"],
        "ended_at": None,
    }
    assert moment(hold["expires_at"]) - moment(hold["created_at"]) == timedelta(seconds=900)
    assert api.get(f"{HOLDS}/{hold['id']}").json() == hold
    assert api.get(path).json() == {"object": "list", "data": [hold], "has_more": False}
    assert held_of(api, account) == ("100", "60", "40")
    too_much = {"amount": "41", "reference": "r", "idempotency_key": "d"}
    assert code_of(api.post(f"{ACCOUNTS}/{account['id']}/debit", json=too_much), 422) == "insufficient_balance"

    capture = {"amount": "25", "idempotency_key": "c", "metadata": {"tokens": "25"}}
    done = api.post(f"{HOLDS}/{hold['id']}/capture", json=capture)
    repeated = api.post(f"{HOLDS}/{hold['id']}/capture", json=capture)

    transaction = done.json()
    assert (done.status_code, repeated.json(), repeated.headers[REPLAY]) == (201, transaction, "true")
    assert (transaction["reference"], transaction["metadata"]) == ("call", {"tokens": "25"})
    (entry,) = transaction["entries"]
    assert (entry["side"], entry["amount"], entry["balance_after"]) == ("debit", "25", "75")
    assert api.get(f"{TRANSACTIONS}/{transaction['id']}").json() == transaction
    after = api.get(f"{HOLDS}/{hold['id']}").json()
    assert (after["status"], after["captured"], after["remaining"]) == ("captured", "25", "0")
    assert after["ended_at"] == transaction["created_at"]
    assert held_of(api, account) == ("75", "0", "75")
    # The answer to the first request is what it was.
    assert api.post(path, json=body).json() == hold


@WORKER
def test_it_is_voided_extended_and_captured_in_parts(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    first, second = (place_hold(api, account, "50", key) for key in ("1", "2"))
    of_first, of_second = (f"{HOLDS}/{hold['id']}" for hold in (first, second))
    later = (datetime.now(UTC) + timedelta(days=30)).isoformat(timespec="milliseconds")

    moved = api.post(f"{of_first}/extend", json={"expires_at": later})
    shorter = api.post(f"{of_first}/extend", json={"expires_in_seconds": 60}, headers={"Idempotency-Key": "e"})
    same = api.post(f"{of_first}/extend", json={"expires_in_seconds": 60, "idempotency_key": "e"})
    part = api.post(
        f"{of_first}/capture", json={"amount": "20", "final": False, "reference": "p", "idempotency_key": "p"}
    )
    voided = api.post(f"{of_second}/void", headers={"Idempotency-Key": "v"})
    again = api.post(f"{of_second}/void", headers={"Idempotency-Key": "v"})

    assert (moved.status_code, moment(moved.json()["expires_at"])) == (200, moment(later))
    assert moment(shorter.json()["expires_at"]) < moment(later)
    assert (same.json()["expires_at"], same.headers[REPLAY]) == (shorter.json()["expires_at"], "true")
    assert (part.json()["reference"], api.get(of_first).json()["remaining"]) == ("p", "30")
    assert (voided.status_code, voided.json()["status"], voided.json()["remaining"]) == (200, "voided", "0")
    assert (again.json(), again.headers[REPLAY]) == (voided.json(), "true")
    assert held_of(api, account) == ("80", "30", "50")
    over = {"amount": "31", "idempotency_key": "o"}
    assert code_of(api.post(f"{of_first}/capture", json=over), 422) == "capture_exceeds_hold"
    allowed = {"amount": "81", "allow_overage": True, "idempotency_key": "o2"}
    assert code_of(api.post(f"{of_first}/capture", json=allowed), 422) == "insufficient_balance"
    assert api.post(f"{of_first}/capture", json={**allowed, "amount": "80", "idempotency_key": "o3"}).status_code == 201
    assert held_of(api, account) == ("0", "0", "0")
    listed = {
        status: api.get(f"{ACCOUNTS}/{account['id']}/holds?status={status}").json()["data"] for status in STATUSES
    }
    assert {status: [hold["id"] for hold in holds] for status, holds in listed.items()} == {
        "open": [],
        "captured": [first["id"]],
        "voided": [second["id"]],
        "expired": [],
    }


STATUSES = ("open", "captured", "voided", "expired")
#: What is asked of a hold, below its path.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("capture", {"idempotency_key": "late"}),
    ("void", {}),
    ("extend", {"expires_in_seconds": 60}),
]


@WORKER
def test_nothing_can_be_done_with_one_that_has_ended_and_the_code_says_how(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    captured, voided = (place_hold(api, account, "30", key)["id"] for key in ("c", "v"))
    expired = place_hold(api, account, "30", "e", expires_in_seconds=1)
    api.post(f"{HOLDS}/{captured}/capture", json={"amount": "1", "idempotency_key": "capture"})
    api.post(f"{HOLDS}/{voided}/void")

    of_expired = f"{HOLDS}/{expired['id']}"
    assert wait_until(lambda: api.get(of_expired).json()["status"] == "expired", seconds=DEADLINE_SECONDS)
    ended = api.get(of_expired).json()
    assert (ended["remaining"], ended["ended_at"], held_of(api, account)) == (
        "0",
        expired["expires_at"],
        ("99", "0", "99"),
    )
    for identifier, status in ((captured, "captured"), (voided, "voided"), (expired["id"], "expired")):
        for change, body in CHANGES:
            answer = api.post(f"{HOLDS}/{identifier}/{change}", json=body | numbered(body, status))
            assert code_of(answer, 409) == f"hold_{status}"
        assert api.get(f"{HOLDS}/{identifier}").json()["status"] == status
        listed = api.get(f"{ACCOUNTS}/{account['id']}/holds?status={status}").json()["data"]
        assert [each["id"] for each in listed] == [identifier]
    assert api.get(of_expired).json() == ended
    assert api.post(f"{ACCOUNTS}/{account['id']}/close").status_code == 200


def numbered(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the body's key, made one of its own."""
    return {"idempotency_key": f"late {name}"} if "idempotency_key" in body else {}


@WORKER
def test_a_frozen_account_lets_holds_be_voided_only_and_one_with_holds_is_not_closed(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    hold = place_hold(api, account, "60", "h")
    of_account, of_hold = f"{ACCOUNTS}/{account['id']}", f"{HOLDS}/{hold['id']}"

    assert code_of(api.post(f"{of_account}/close"), 409) == "account_has_holds"
    api.post(f"{of_account}/freeze")
    body = {"amount": "1", "reference": "r", "idempotency_key": "f"}
    assert code_of(api.post(f"{of_account}/holds", json=body), 409) == "account_frozen"
    assert code_of(api.post(f"{of_hold}/capture", json={"idempotency_key": "f2"}), 409) == "account_frozen"
    assert code_of(api.post(f"{of_hold}/extend", json={"expires_in_seconds": 1}), 409) == "account_frozen"
    assert api.post(f"{of_hold}/void").json()["status"] == "voided"
    assert api.post(f"{of_account}/close").status_code == 200


@WORKER
def test_unknown_ids_use_up_no_key(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    body = {"amount": "1", "reference": "r", "idempotency_key": "k"}

    for identifier in (UNKNOWN_HOLD, f"cch_{account['id'][4:]}1", "cch_", "cct_" + "0" * 32 + "1", "%00"):
        assert code_of(api.get(f"{HOLDS}/{identifier}"), 404) == "not_found"
        for change, given in CHANGES:
            assert (
                code_of(api.post(f"{HOLDS}/{identifier}/{change}", json={**given, **KEY[change]}), 404) == "not_found"
            )
    assert code_of(api.post(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/holds", json=body), 404) == "not_found"
    assert code_of(api.get(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/holds"), 404) == "not_found"
    assert api.post(f"{ACCOUNTS}/{account['id']}/holds", json=body).status_code == 201


#: The same key in each, where the body takes one.
KEY: dict[str, dict[str, Any]] = {"capture": {"idempotency_key": "k"}, "void": {}, "extend": {"idempotency_key": "k"}}


#: What may not stand in the body of a hold, and the field that the answer names; none where it is about two.
BAD_FIELDS: list[tuple[dict[str, Any], str | None]] = [
    ({"amount": "0"}, "amount"),
    ({"amount": 5}, "amount"),
    ({"reference": ""}, "reference"),
    ({"expires_in_seconds": 0}, "expires_in_seconds"),
    ({"expires_in_seconds": "60"}, "expires_in_seconds"),
    ({"expires_in_seconds": 60.5}, "expires_in_seconds"),
    ({"expires_in_seconds": 366 * 86_400 + 1}, "expires_in_seconds"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": 5}, "expires_at"),
    ({"expires_in_seconds": 60, "expires_at": "2100-01-01T00:00:00Z"}, None),
    ({"final": True}, "final"),
    ({"idempotency_key": "expiry:cch_1"}, "idempotency_key"),
]


def test_a_body_that_breaks_a_rule_is_refused_by_field(api: TestClient) -> None:
    for fields, param in BAD_FIELDS:
        body = {"amount": "1", "reference": "r", "idempotency_key": "k", **fields}
        answer = api.post(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/holds", json=body)
        assert (code_of(answer, 400), answer.json()["error"]["param"]) == ("validation_error", param), fields
        assert ("not both" if param is None else param) in answer.json()["error"]["message"]
    for body in ({}, {"expires_in_seconds": 60, "expires_at": "2100-01-01"}, {"expires_in_seconds": None}):
        answer = api.post(f"{HOLDS}/{UNKNOWN_HOLD}/extend", json=body)
        assert (code_of(answer, 400), answer.json()["error"]["param"]) == ("validation_error", None)
    # An amount that is null is perhaps a sum that went wrong, and would be all that is left.
    for fields, param in (({"final": "no"}, "final"), ({"amount": None}, "amount")):
        answer = api.post(f"{HOLDS}/{UNKNOWN_HOLD}/capture", json={**fields, "idempotency_key": "k"})
        assert (code_of(answer, 400), answer.json()["error"]["param"]) == ("validation_error", param)


@WORKER
def test_an_end_that_is_past_or_far_away_is_refused(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    path = f"{ACCOUNTS}/{account['id']}/holds"
    for key, end in (("past", "2020-01-01"), ("far", "9000-01-01T00:00:00Z")):
        body = {"amount": "1", "reference": "r", "idempotency_key": key, "expires_at": end}
        answer = api.post(path, json=body)
        assert (code_of(answer, 422), answer.json()["error"]["param"]) == ("expires_at_out_of_range", "expires_at")
    assert api.get(path).json()["data"] == []


@WORKER
def test_a_dry_run_answers_as_the_request_would_and_leaves_all_as_it_is(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    path = f"{ACCOUNTS}/{account['id']}/holds"
    body = {"amount": "60", "reference": "r", "idempotency_key": "d", "dry_run": True}

    would_be = api.post(path, json=body)
    assert (would_be.status_code, would_be.json()["id"], would_be.json()["dry_run"]) == (201, "dry_run", True)
    assert code_of(api.post(path, json={**body, "amount": "101"}), 422) == "insufficient_balance"
    assert api.get(path).json()["data"] == []

    hold = place_hold(api, account, "60", "d")
    of_hold = f"{HOLDS}/{hold['id']}"
    captured = api.post(f"{of_hold}/capture", json={"amount": "25", "idempotency_key": "c", "dry_run": True}).json()
    voided = api.post(f"{of_hold}/void?dry_run=true").json()
    moved = api.post(f"{of_hold}/extend", json={"expires_in_seconds": 60.0, "dry_run": True}).json()
    assert (captured["id"], captured["entries"][0]["balance_after"], captured["dry_run"]) == ("dry_run", "75", True)
    assert (voided["id"], voided["status"], voided["remaining"], voided["dry_run"]) == (hold["id"], "voided", "0", True)
    assert (moment(moved["expires_at"]) < moment(hold["expires_at"]), moved["dry_run"]) == (True, True)
    assert (api.get(of_hold).json(), held_of(api, account)) == (hold, ("100", "60", "40"))


@WORKER
def test_a_hold_that_is_not_waited_for_is_found_under_its_command(api: TestClient) -> None:
    account = open_account(api, initial_balance="100")
    body = {"amount": "60", "reference": "r", "idempotency_key": "h"}

    queued = api.post(f"{ACCOUNTS}/{account['id']}/holds", json=body, headers={"Prefer": "respond-async"})
    found = api.get(f"{queued.headers['location']}?wait=30").json()

    assert (queued.status_code, found["status"], found["kind"]) == (202, "applied", "hold")
    assert (found["hold"]["amount"], found["account"], found["transaction"]) == ("60", None, None)
    assert found["hold"] == api.get(f"{HOLDS}/{found['hold']['id']}").json()


@WORKER
def test_lines_of_a_batch_hold_capture_extend_and_void(api: TestClient) -> None:
    """Given lines of each kind, then they are decided in order; wrong ones are refused by field alone."""
    account = open_account(api, initial_balance="100")
    first, second = (place_hold(api, account, "20", key)["id"] for key in ("1", "2"))
    lines: list[dict[str, Any]] = [
        {"kind": "hold", "account_id": account["id"], "amount": "10", "reference": "r", "idempotency_key": "b1"},
        {"kind": "capture", "hold_id": first, "amount": "5", "final": False, "idempotency_key": "b2"},
        {"kind": "extend", "hold_id": first, "expires_in_seconds": 60},
        {"kind": "void", "hold_id": second},
        {"kind": "capture", "hold_id": second, "idempotency_key": "b3"},
        {"kind": "capture", "hold_id": "cch_1", "idempotency_key": "b4"},
        {"kind": "extend", "hold_id": first},
        {"kind": "expiry", "account_id": account["id"]},
        {"kind": "hold", "account_id": account["id"], "amount": "1", "reference": "r"},
    ]

    body = "\n".join(map(json.dumps, lines))
    answers = api.post(COMMANDS, content=body, headers={"content-type": "application/x-ndjson"}).text.splitlines()

    parsed = [json.loads(line) for line in answers]
    assert [line["status"] for line in parsed] == ["queued"] * 5 + ["refused"] * 4
    assert [line["error"]["param"] for line in parsed[5:]] == ["hold_id", None, "kind", "idempotency_key"]
    found = [api.get(f"{COMMANDS}/{line['id']}?wait=30").json() for line in parsed[:5]]
    assert [each["status"] for each in found] == ["applied"] * 4 + ["rejected"]
    assert [found[0]["hold"]["amount"], found[3]["hold"]["status"]] == ["10", "voided"]
    assert found[1]["transaction"]["entries"][0]["amount"] == "5"
    assert found[4]["error"]["code"] == "hold_voided"
    assert held_of(api, account) == ("95", "25", "70")
    move(api, account, "credit", "1", "still there")
