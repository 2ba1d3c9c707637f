"""Each kind of command is described once, and what derives from the record covers every kind and no other."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

import creditlane
from creditlane import AsyncClient, Client
from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.producer.api.batch_lines import LINE_KINDS, LINES, lines_by_word
from creditlane.producer.api.errors import CODES, public_code
from creditlane.schemas.accounts import AccountFeatures, AccountState
from creditlane.schemas.commands import (
    MAX_OPEN_HOLDS,
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Expiry,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    Reverse,
    SetLimit,
    Unfreeze,
    Void,
)
from creditlane.schemas.errors import Rejected
from creditlane.schemas.events import EVENT_TYPES
from creditlane.schemas.identifiers import Position, hold_id, transaction_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.kinds import KIND_OF_WORD, Kind, checked
from creditlane.schemas.results import moment_of
from creditlane.schemas.statuses import HoldStatus
from creditlane.worker.ledger.decide import decide_all, table_of
from creditlane.worker.ledger.state import UNOPENED, BatchState, HoldState

STORE = 1
ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
#: Holds of an account: one of each status, and an open one that has ended when the commands come.
HOLDS = {
    1: HoldState(int(HoldStatus.OPEN), 10, 0, 10, "r", 0, 10**9),
    **{
        number: HoldState(int(status), 10, 10, 0, "r", 0, 10**9, 0)
        for number, status in enumerate((HoldStatus.CAPTURED, HoldStatus.VOIDED, HoldStatus.EXPIRED), start=2)
    },
    5: HoldState(int(HoldStatus.OPEN), 7, 0, 7, "r", 0, 1),
}
#: With these alone, and with so many more of one each that none may be added.
HOLDING = [AccountFeatures(17 + more, None, 2 + more, 1) for more in (0, MAX_OPEN_HOLDS - 1)]
#: In each state that an account can be in, without an overdraft and with one that is used, with holds and a maximum.
STATES = [
    UNOPENED,
    *(AccountState(status, balance, limit, 2, 1, 0) for status in (1, 2, 3) for balance, limit in ((40, 0), (-5, 10))),
    *(AccountState(status, 23 + of.held, 0, 2, 1, 0, of) for status in (1, 2) for of in HOLDING),
    AccountState(1, 600, 0, 2, 1, 0, AccountFeatures(17, 1_000, 2, 1)),
]
#: Of a transaction: it has two entries.
LISTED = f"""{{"entries": [{{"account_id": "{ANN}", "seq": 5}}, {{"account_id": "{ANN}", "seq": 4}}]}}"""
#: Entries that reversals are tried on: one that gave much more than is there now, a reversal, one on either side, the
#: first of two of a transaction, and one that is reversed already.
ENTRIES = [
    JournalRow(STORE, ANN, seq, int(kind), side, amount, 40, 0, f"entry {seq}", "r", reversal_of, 0, None, content)
    for seq, kind, side, amount, reversal_of, content in (
        (1, Kind.CREDIT, 1, 1_000, None, None),
        (2, Kind.REVERSE, -1, 960, 1, None),
        (3, Kind.DEBIT, -1, 5, None, None),
        (4, Kind.CREDIT, 1, 5, None, None),
        (5, Kind.POST, 1, 5, None, LISTED),
        (6, Kind.CREDIT, 1, 5, None, None),
    )
]
AMOUNTS = {"account_id": ANN, "reference": "r", "idempotency_key": "k"}


def posted(one: int, other: int) -> Post:
    entries = (
        {"account_id": ANN, "side": "debit", "amount": one},
        {"account_id": BOB, "side": "credit", "amount": other},
    )
    return Post(reference="r", idempotency_key="k", entries=entries)  # type: ignore[arg-type]


#: Commands that meet whatever can stand in the way of their kind.
TRIED: list[Command] = [
    OpenAccount(account_id=ANN, customer_id="c", idempotency_key="k"),
    OpenAccount(account_id=ANN, customer_id="c", idempotency_key="k", initial_balance=7),
    Credit(amount=5, **AMOUNTS),  # type: ignore[arg-type]
    Debit(amount=5, **AMOUNTS),  # type: ignore[arg-type]
    Debit(amount=500, **AMOUNTS),  # type: ignore[arg-type]
    *(Reverse(account_id=ANN, transaction_id=transaction_id(ANN, seq)) for seq in (1, 2, 3, 4, 6, 9)),
    *(
        Reverse(account_id=ANN, transaction_id=transaction_id(ANN, seq), amount=amount, idempotency_key="k")
        for seq, amount in ((3, 4), (3, 6), (4, 4), (5, 4), (6, 1))
    ),
    *(kind(account_id=ANN, idempotency_key="k") for kind in (Freeze, Unfreeze, Close)),
    posted(5, 5),
    posted(5, 6),
    posted(500, 500),
    Hold(amount=5, **AMOUNTS),  # type: ignore[arg-type]
    Hold(amount=500, **AMOUNTS),  # type: ignore[arg-type]
    Hold(amount=5, expires_at=moment_of(0), **AMOUNTS),  # type: ignore[arg-type]
    *(Capture(hold_id=hold_id(ANN, number), idempotency_key="k") for number in (1, 2, 3, 4, 9)),
    Capture(hold_id=hold_id(ANN, 1), idempotency_key="k", amount=11),
    Capture(hold_id=hold_id(ANN, 1), idempotency_key="k", amount=500, allow_overage=True),
    *(Void(hold_id=hold_id(ANN, number), idempotency_key="k") for number in (1, 2, 3, 4, 9)),
    *(Extend(hold_id=hold_id(ANN, number), idempotency_key="k", expires_in_seconds=5) for number in (1, 2, 3, 4, 9)),
    Extend(hold_id=hold_id(ANN, 1), idempotency_key="k", expires_at=moment_of(1)),
    Expiry(account_id=ANN),
    Credit(amount=10**6, **AMOUNTS),  # type: ignore[arg-type]
    SetLimit(account_id=ANN, idempotency_key="k", limit="max_balance", amount=7),
    SetLimit(account_id=ANN, idempotency_key="k", limit="low_balance"),
    SetLimit(account_id=ANN, idempotency_key="k", limit="credit_limit"),
]
#: The kinds that callers can send.
SENDABLE = [kind for kind in Kind if not kind.record.internal]
#: Those that the clients have no method for yet.
WITHOUT_METHOD = {Kind.HOLD, Kind.CAPTURE, Kind.VOID, Kind.EXTEND}


def batch_of(state: AccountState, *, name_is_taken: bool) -> BatchState:
    bob = AccountState(1, 0, 0, 0, 1, 0, features=AccountFeatures(max_balance=100))
    batch = BatchState({(STORE, ANN): state, (STORE, BOB): bob})
    batch.has_reversals = True
    batch.originals = {(STORE, Position(ANN, row.seq)): row for row in ENTRIES}
    batch.reversed = {(STORE, Position(ANN, 6)): 5}
    batch.names_taken = {(STORE, ANN): BOB} if name_is_taken else {}
    if state.features is not None:
        batch.holds, batch.holders = {(STORE, ANN): dict(HOLDS)}, {(STORE, ANN)}
        batch.next_ends = {(STORE, ANN): 10**9}
    return batch


def rows_of(kind: Kind) -> list[JournalRow]:
    """What commands of the kind leave behind, whatever they meet."""
    rows = []
    for command in (command for command in TRIED if type(command) is kind.record.model):
        on_lane = decode_command(encode_command(command, "store_default"))
        for batch in (batch_of(state, name_is_taken=taken) for state in STATES for taken in (False, True)):
            (outcome,) = decide_all([((STORE, ANN), on_lane)], batch, 1)
            rows += [row for row in (outcome.row, *outcome.further) if row is not None]
            rows += [row for _, row in batch.expired if row.kind == kind]
    return rows


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.word)
def test_a_record_names_every_rejection_of_its_rule_and_no_other(kind: Kind) -> None:
    met = {row.rejection for row in rows_of(kind) if row.rejection is not None}

    assert met == {rejection.code for rejection in kind.record.rejections}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.word)
def test_a_record_names_every_side_of_its_applied_rows_and_no_other(kind: Kind) -> None:
    applied = [row for row in rows_of(kind) if row.rejection is None]

    assert {row.side for row in applied} == set(kind.record.events)
    assert {row.side for row in applied if row.seq > 0} == kind.entry_sides


@pytest.mark.parametrize("kind", SENDABLE, ids=lambda kind: kind.word)
def test_a_record_reads_back_what_was_asked_for(kind: Kind) -> None:
    """Given any command of the kind, then its row has every field that makes two of them the same request."""
    rows = rows_of(kind)

    assert rows
    for row in (row for row in rows if row.idempotency_key and row.account_id == ANN):
        content = kind.record.content_of(row)
        assert set(kind.record.model.content_fields) <= content.keys()
        again = kind.record.model(account_id=ANN, idempotency_key=f"{row.idempotency_key}:x", **content)
        assert {name: getattr(again, name) for name in again.content_fields} == content


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.word)
def test_every_rejection_of_a_kind_is_documented_for_callers(kind: Kind) -> None:
    for rejection in kind.record.rejections:
        assert public_code(rejection.code) in CODES


def test_every_event_that_an_applied_row_can_make_is_named_by_a_kind() -> None:
    named = {event for kind in Kind for events in kind.record.events.values() for event in events}

    assert named == set(EVENT_TYPES) - {"command.rejected"}


@pytest.mark.parametrize("kind", [kind for kind in SENDABLE if kind not in WITHOUT_METHOD], ids=lambda kind: kind.word)
def test_the_clients_send_every_kind(kind: Kind) -> None:
    assert kind.record.model.__name__ in creditlane.__all__
    for client in (Client, AsyncClient):
        assert hasattr(client, kind.word) or hasattr(client, f"{kind.word}_account")


def test_a_field_that_a_kind_adds_is_part_of_the_request() -> None:
    class Dearer(Debit):
        colour: str = "red"

    assert Dearer.content_fields == (*Debit.content_fields, "colour")


def test_a_kind_without_a_rule_is_an_error() -> None:
    rules = dict.fromkeys(set(Kind) - {Kind.CLOSE, Kind.POST}, len)

    with pytest.raises(TypeError, match="no rule decides close, post"):
        table_of(Kind, rules)


def test_a_rule_without_a_kind_is_an_error() -> None:
    with pytest.raises(TypeError, match="a rule in the wrong table decides close"):
        table_of({Kind.OPEN_ACCOUNT}, dict.fromkeys({Kind.OPEN_ACCOUNT, Kind.CLOSE}, len))


@pytest.mark.parametrize(
    ("change", "module", "message"),
    [
        ("kinds.SPANNING = kinds.SPANNING - {kinds.Kind.POST}", "worker.ledger.decide", "no rule decides post"),
        (
            "kinds.SPANNING = kinds.SPANNING | {kinds.Kind.DEBIT}",
            "worker.ledger.decide",
            "a rule in the wrong table decides debit",
        ),
        (
            "kinds.Kind.CREDIT.word = 'deposit'",
            "producer.api.batch_lines",
            "the batch endpoint and the kinds of command differ in credit, deposit",
        ),
    ],
    ids=["no rule", "wrong table", "no line"],
)
def test_a_kind_that_a_room_does_not_know_stops_the_import(change: str, module: str, message: str) -> None:
    program = f"from creditlane.schemas import kinds\n{change}\nimport creditlane.{module}"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"TypeError: {message}" in done.stderr


def test_a_kind_without_a_line_is_an_error() -> None:
    with pytest.raises(TypeError, match="differ in reverse"):
        lines_by_word([line for line in LINES if line.__name__ != "ReverseLine"], LINE_KINDS)


def test_a_number_without_a_record_is_an_error() -> None:
    # As the enumeration calls it for a member that is a number only.
    with pytest.raises(TypeError, match="the kind of number 9 has no record"):
        Kind._new_member_(Kind, 9)  # type: ignore[attr-defined]


def test_a_model_that_is_called_otherwise_than_its_kind_is_an_error() -> None:
    other = SimpleNamespace(name="CREDIT", word="debit", record=Kind.DEBIT.record)

    with pytest.raises(TypeError, match=r"Debit\.kind is 'debit'"):
        checked([other])  # type: ignore[list-item]


def test_a_rejection_that_no_caller_knows_is_an_error() -> None:
    class Unheard(Rejected):
        """Nobody knows it."""

        code = "unheard"

    record = Kind.DEBIT.record._replace(rejections=(Unheard,))

    with pytest.raises(TypeError, match="debit: Unheard is no rejection"):
        checked([SimpleNamespace(name="DEBIT", word="debit", record=record)])  # type: ignore[list-item]


def test_numbers_and_words_of_the_kinds_do_not_move() -> None:
    """What is stored and what is on the lanes outlives every release."""
    assert {word: int(kind) for word, kind in KIND_OF_WORD.items()} == {
        "open_account": 1,
        "credit": 2,
        "debit": 3,
        "reverse": 4,
        "freeze": 5,
        "unfreeze": 6,
        "close": 7,
        "post": 8,
        "hold": 9,
        "capture": 10,
        "void": 11,
        "extend": 12,
        "expiry": 13,
        "set_limit": 14,
    }
