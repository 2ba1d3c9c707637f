"""Whatever bytes are sent as a body, an operation does what was asked or answers with the one error body: no 5xx.

Over a real connection to a real process, with a worker that decides what gets through.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from creditlane import Settings
from creditlane.audit.whole import verify

from .requests_of import ACCOUNTS, COMMANDS, TRANSACTIONS, code_of

EXAMPLES = 400 if os.environ.get("CREDITLANE_TEST_LONG") == "1" else 25
MEBIBYTE = 1_048_576

MOVEMENT = {"amount": "1", "reference": "ref", "idempotency_key": "key"}

Operation = tuple[str, str]
#: What an operation would take as a body; None where it takes none.
Good = dict[str, Any] | None


def operations_on(account_id: str, transaction_id: str) -> dict[Operation, Good]:
    """Return every operation, on what exists, so that a body that gets through is decided."""
    pair = [{"account_id": account_id, "side": side, "amount": "1"} for side in ("debit", "credit")]
    account, transaction = f"{ACCOUNTS}/{account_id}", f"{TRANSACTIONS}/{transaction_id}"
    return {
        ("POST", ACCOUNTS): {"customer_id": "cust", "name": "n", "unit_label": "u", "initial_balance": "0"},
        ("GET", ACCOUNTS): None,
        ("GET", account): None,
        ("GET", f"{account}/balance"): None,
        ("GET", f"{account}/entries"): None,
        ("POST", f"{account}/credit"): MOVEMENT,
        ("POST", f"{account}/debit"): MOVEMENT,
        ("POST", f"{account}/reverse"): {"transaction_id": transaction_id},
        ("POST", TRANSACTIONS): {"reference": "ref", "idempotency_key": "key", "entries": pair},
        ("GET", f"{TRANSACTIONS}?reference=ref"): None,
        ("GET", transaction): None,
        ("POST", COMMANDS): {"kind": "debit", "account_id": account_id, **MOVEMENT},
        ("GET", f"{COMMANDS}/cmd_unknown"): None,
        ("POST", f"{transaction}/reverse"): None,
        ("POST", f"{account}/freeze"): None,
        ("POST", f"{account}/unfreeze"): None,
        ("POST", f"{account}/close"): None,
        ("PUT", f"{account}/limits/max_balance"): {"amount": "5"},
    }


class Body(NamedTuple):
    """What is sent as a body, and as what."""

    data: bytes
    content_type: str | None


content_types = st.sampled_from(
    [
        "application/json",
        "application/json",
        "application/json; charset=utf-16",
        "application/json; charset=none such",
        "application/x-ndjson",
        "application/vnd.api+json",
        "text/plain",
        "text/json; =",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "/",
        "",
        None,
    ]
)

#: JSON as text, so that it may say what no Python value can: huge numbers, duplicate keys, lone surrogates.
scalars = st.one_of(
    st.sampled_from(
        ["null", "true", "NaN", "-Infinity", "-0", "1e400", "-1.5E-400", "0x1", "01", "", '""', '"\\u0000"']
    ),
    st.sampled_from(['"\\ud800"', '"\\udc00\\ud800"', '"\\x"', '"', "'a'", '"\x00"', '"\u2028"', '"\ufeff"', '"٣"']),
    st.integers(1, 6_000).map("9".__mul__),
    st.integers(1, 6_000).map(lambda digits: '"' + "9" * digits + '"'),
    st.integers(1, 6_000).map(lambda digits: f"1.{'0' * digits}1"),
    st.text(max_size=40).map(json.dumps),
    st.text(max_size=40).map(lambda text: json.dumps(text, ensure_ascii=False)),
)


def nested(start: str, closing: str) -> st.SearchStrategy[str]:
    """Return something that is nested deeply, closed or not."""
    depths = st.sampled_from([1, 2, 60, 500, 1_100, 30_000])
    return st.builds(lambda depth, is_closed: start * depth + "1" + closing * depth * is_closed, depths, st.booleans())


values = st.one_of(scalars, nested("[", "]"), nested('{"a":', "}"), st.sampled_from(["[]", "{}", "[{}]", "[null,1]"]))


@st.composite
def spoilt(draw: st.DrawFn, good: dict[str, Any]) -> str:
    """Return the text of a good body in which some fields have other values, come twice, or are none of its."""
    names = st.one_of(
        st.sampled_from(sorted(good)), st.sampled_from(["v", "store_id", "__proto__", "", "\x00", "\ud800"]), st.text()
    )
    pairs = [(name, json.dumps(value)) for name, value in good.items()]
    for name, value in draw(st.lists(st.tuples(names, values), min_size=1, max_size=4)):
        at = draw(st.integers(0, len(pairs)))
        kept = pairs if draw(st.booleans()) else [pair for pair in pairs if pair[0] != name]
        pairs = [*kept[:at], (name, value), *kept[at:]]
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"


@st.composite
def bodies(draw: st.DrawFn, good: Good) -> Body:
    """Return a body that nobody should send to an operation that takes this one."""
    texts = [values, spoilt(MOVEMENT if good is None else good), st.text(max_size=60)]
    encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1", "utf-7"])
    encoded = st.builds(lambda text, encoding: text.encode(encoding, "replace"), st.one_of(texts), encodings)
    data = draw(st.one_of(encoded, encoded, encoded, st.binary(max_size=60), st.just(b"")))
    if draw(st.booleans()) and data:
        # Bytes that are no UTF-8, somewhere within what would have been fine.
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\n", b"\x00"])) + data[at:]
    return Body(data, draw(content_types))


@pytest.fixture
def served(serve_api: Callable[[], tuple[str, str]]) -> Iterator[httpx2.Client]:
    url, key = serve_api()
    with httpx2.Client(base_url=url, headers={"x-api-key": key}, timeout=60) as http:
        yield http


@pytest.fixture
def operations(served: httpx2.Client) -> dict[Operation, Good]:
    opened = served.post(ACCOUNTS, json={"customer_id": "c", "initial_balance": "9"}).json()["id"]
    (entry,) = served.get(f"{ACCOUNTS}/{opened}/entries").json()["data"]
    return operations_on(opened, entry["transaction_id"])


def send(http: httpx2.Client, operation: Operation, body: Body) -> httpx2.Response:
    headers = {} if body.content_type is None else {"content-type": body.content_type}
    return http.request(*operation, content=body.data, headers=headers)


def assert_survives(http: httpx2.Client, operation: Operation, good: Good) -> None:
    """Send the operation all sorts of bodies; hold that no answer shows a defect, and that errors have one body."""

    @examples(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(operation=st.just(operation), body=bodies(good))
    def ask(operation: Operation, body: Body) -> None:
        answer = send(http, operation, body)
        assert answer.status_code < 500, answer.text
        assert answer.status_code in {200, 201} or code_of(answer, answer.status_code)

    ask()


def test_no_body_gets_a_5xx(served: httpx2.Client, operations: dict[Operation, Good], settings: Settings) -> None:
    """Given bodies of every sort, when each operation gets them, then it succeeds or answers the one error body."""
    for operation, good in operations.items():
        assert_survives(served, operation, good)

    assert verify(settings.require_database_url()).failed == []


def test_a_body_over_the_limit_is_refused(served: httpx2.Client, operations: dict[Operation, Good]) -> None:
    """Given a body of one byte more than a mebibyte, then it is refused as too large; the batch's limit is a line's."""
    for operation, good in operations.items():
        data = json.dumps(good or {}).encode()
        answer = send(served, operation, Body(data + b" " * (MEBIBYTE + 1 - len(data)), "application/json"))

        if operation == ("POST", COMMANDS):
            assert answer.status_code == 200
            assert answer.json()["error"]["code"] == "too_large"
        else:
            assert code_of(answer, 413) == "too_large"
