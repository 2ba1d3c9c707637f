"""The rules of holds, one by one: what is set aside, what becomes of it, and that it ends by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from pydantic import ValidationError

from creditlane.lanes.encoding import LaneCommand, decode_command, encode_command
from creditlane.producer.client.chunks import addressed
from creditlane.schemas.accounts import AccountFeatures, AccountState
from creditlane.schemas.commands import (
    DEFAULT_HOLD_SECONDS,
    MAX_HOLD_SECONDS,
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
    Post,
    PostEntry,
    Unfreeze,
    Void,
)
from creditlane.schemas.errors import InvalidCommand
from creditlane.schemas.identifiers import hold_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.results import moment_of, result_of_row
from creditlane.schemas.statuses import HoldStatus, Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.holds import end, expiry_key
from creditlane.worker.ledger.state import BatchState, HoldState, Outcome

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
STORE = 1
SECOND = 1_000_000
NOW = 1_000 * SECOND
#: One entry and no decision: the first hold is number 1.
RICH = AccountState(int(Status.ACTIVE), 100, 0, 1, 0, 500)
FIRST = hold_id(ANN, 1)


def on_lane(command: Command) -> LaneCommand:
    return decode_command(encode_command(command, "store_default"))


class Ledger:
    """Commands one after the other, each on what the ones before have left."""

    def __init__(self, ann: AccountState = RICH, bob: AccountState = RICH) -> None:
        self.batch = BatchState({(STORE, ANN): ann, (STORE, BOB): bob})

    @property
    def ann(self) -> AccountState:
        return self.batch.accounts[STORE, ANN]

    def hold(self, number: int = 1) -> HoldState:
        return self.batch.holds[STORE, ANN][number]

    def decide(self, command: Command, now_us: int = NOW) -> Outcome:
        account = (STORE, str(command.account_id))
        (outcome,) = decide_all([(account, on_lane(command))], self.batch, now_us)
        return outcome

    def row(self, command: Command, now_us: int = NOW) -> JournalRow:
        row = self.decide(command, now_us).row
        assert row is not None
        return row

    def expired(self) -> list[str]:
        return [row.idempotency_key for _, row in self.batch.expired]


def holding(amount: int = 60, key: str = "hold", **fields: Any) -> Hold:
    return Hold(account_id=ANN, idempotency_key=key, amount=amount, reference="call", **fields)


def capturing(amount: int | None = None, key: str = "capture", **fields: Any) -> Capture:
    return Capture(hold_id=FIRST, idempotency_key=key, amount=amount, **fields)


def voiding(key: str = "void") -> Void:
    return Void(hold_id=FIRST, idempotency_key=key)


def extending(key: str = "extend", **fields: Any) -> Extend:
    return Extend(hold_id=FIRST, idempotency_key=key, **fields)


def held(amount: int = 60, **fields: Any) -> Ledger:
    ledger = Ledger()
    assert ledger.row(holding(amount, **fields)).rejection is None
    return ledger


def test_hold_takes_out_of_what_is_available_and_moves_nothing() -> None:
    ledger = Ledger()
    row = ledger.row(holding(60))
    assert (row.seq, row.side, row.amount, row.balance_after, row.held_after, row.rejection) == (
        -1,
        0,
        60,
        100,
        60,
        None,
    )
    assert (ledger.ann.balance, ledger.ann.held, ledger.ann.available) == (100, 60, 40)
    assert ledger.hold() == HoldState(int(HoldStatus.OPEN), 60, 0, 60, "call", NOW, NOW + DEFAULT_HOLD_SECONDS * SECOND)
    assert ledger.ann.features == AccountFeatures(60, None, 1, NOW + DEFAULT_HOLD_SECONDS * SECOND)


def test_what_is_held_can_be_neither_held_again_nor_debited_nor_posted() -> None:
    ledger = held(60)
    debit = Debit(account_id=ANN, idempotency_key="d", amount=41, reference="r")
    entries = (
        PostEntry(account_id=ANN, side="debit", amount=41),
        PostEntry(account_id=BOB, side="credit", amount=41),
    )
    assert ledger.row(holding(41, key="second")).rejection == "insufficient_balance"
    assert ledger.row(debit).rejection == "insufficient_balance"
    assert ledger.row(Post(idempotency_key="p", reference="r", entries=entries)).rejection == "insufficient_balance"
    assert ledger.row(holding(40, key="third")).rejection is None
    assert ledger.ann.available == 0


def test_refusal_of_a_hold_says_what_is_available() -> None:
    ledger = held(60)
    error = result_of_row(ledger.row(holding(41, key="second"))).error
    assert error is not None
    assert (error.code, error.details) == ("insufficient_balance", {"needed": "41", "available": "40"})


def test_hold_may_use_the_overdraft_limit() -> None:
    ledger = Ledger(msgspec.structs.replace(RICH, overdraft_limit=50))
    assert ledger.row(holding(150)).rejection is None
    assert ledger.row(holding(1, key="second")).rejection == "insufficient_balance"


def test_capture_posts_what_was_used_and_releases_the_rest() -> None:
    ledger = held(60)
    row = ledger.row(capturing(25))
    assert (row.seq, row.side, row.amount, row.balance_after, row.held_after) == (2, -1, 25, 75, 0)
    assert row.reference == "call"
    assert ledger.ann.features is None
    assert ledger.hold() == msgspec.structs.replace(
        ledger.hold(), status=int(HoldStatus.CAPTURED), captured=25, remaining=0, ended_at_us=NOW
    )


def test_capture_without_an_amount_takes_all_that_is_left() -> None:
    ledger = held(60)
    assert ledger.row(capturing(10, final=False)).amount == 10
    assert ledger.row(capturing(key="rest")).amount == 50
    assert (ledger.ann.balance, ledger.ann.held) == (40, 0)


def test_captures_in_parts_keep_the_rest_set_aside() -> None:
    ledger = held(60)
    row = ledger.row(capturing(25, final=False, reference="first part"))
    assert (row.held_after, row.balance_after, row.reference) == (35, 75, "first part")
    assert (ledger.hold().status, ledger.hold().remaining, ledger.hold().captured) == (int(HoldStatus.OPEN), 35, 25)
    assert ledger.ann.available == 40
    assert ledger.row(capturing(35, key="second", final=False)).rejection is None
    # Nothing is left, so it has ended, final or not.
    assert ledger.hold().status == HoldStatus.CAPTURED


def test_capture_above_what_is_left_is_refused_and_says_what_is() -> None:
    ledger = held(60)
    row = ledger.row(capturing(61))
    error = result_of_row(row).error
    assert error is not None
    assert (error.code, error.details) == ("capture_exceeds_hold", {"remaining": "60"})
    assert (ledger.hold().status, ledger.ann.held) == (int(HoldStatus.OPEN), 60)


def test_overage_is_taken_from_what_is_available() -> None:
    ledger = held(60)
    error = result_of_row(ledger.row(capturing(101, key="too much", allow_overage=True))).error
    assert error is not None
    assert error.code == "insufficient_balance"
    assert error.details == {"account_id": ANN, "needed": "41", "available": "40"}
    row = ledger.row(capturing(100, allow_overage=True))
    assert (row.rejection, row.balance_after, row.held_after) == (None, 0, 0)
    assert (ledger.hold().captured, ledger.hold().amount) == (100, 60)


def test_overage_does_not_take_what_other_holds_have_set_aside() -> None:
    ledger = held(60)
    ledger.row(holding(40, key="other"))
    assert ledger.row(capturing(61, allow_overage=True)).rejection == "insufficient_balance"


def test_void_releases_what_is_left() -> None:
    ledger = held(60)
    ledger.row(capturing(25, final=False))
    row = ledger.row(voiding())
    assert (row.seq, row.side, row.amount, row.held_after, row.balance_after) == (-2, 0, 35, 0, 75)
    assert ledger.ann.available == 75
    assert (ledger.hold().status, ledger.hold().captured) == (int(HoldStatus.VOIDED), 25)


@pytest.mark.parametrize("seconds", [1, 10_000_000])
def test_extend_moves_the_end_to_earlier_or_later(seconds: int) -> None:
    ledger = held(60)
    row = ledger.row(extending(expires_in_seconds=seconds), NOW + SECOND)
    assert (row.rejection, row.held_after) == (None, 60)
    assert ledger.hold().expires_at_us == NOW + SECOND + seconds * SECOND
    ends_us = NOW + SECOND + seconds * SECOND
    ledger.row(Credit(account_id=ANN, idempotency_key="before", amount=1, reference="r"), ends_us - 1)
    assert ledger.ann.held == 60
    ledger.row(Credit(account_id=ANN, idempotency_key="after", amount=1, reference="r"), ends_us)
    assert ledger.ann.held == 0


@pytest.mark.parametrize(
    ("end_us", "is_refused"),
    [
        (NOW, True),
        (NOW + 1, False),
        (NOW + MAX_HOLD_SECONDS * SECOND, False),
        (NOW + MAX_HOLD_SECONDS * SECOND + 1, True),
    ],
)
def test_end_must_lie_ahead_when_it_is_decided_and_not_too_far(end_us: int, is_refused: bool) -> None:
    rejection = "expires_at_out_of_range" if is_refused else None
    assert Ledger().row(holding(expires_at=moment_of(end_us))).rejection == rejection
    assert held().row(extending(expires_at=moment_of(end_us))).rejection == rejection


@pytest.mark.parametrize(
    ("ending", "code"),
    [(capturing(key="end"), "hold_captured"), (voiding("end"), "hold_voided"), (None, "hold_expired")],
)
def test_ended_hold_says_how_it_ended(ending: Command | None, code: str) -> None:
    ledger = held(60, expires_in_seconds=10)
    later = NOW + 10 * SECOND
    if ending is not None:
        assert ledger.row(ending).rejection is None
    for command in (capturing(), voiding(), extending(expires_in_seconds=5)):
        row = ledger.row(command, later)
        assert (row.rejection, row.held_after) == (code, 0)


@pytest.mark.parametrize(
    "command",
    [
        Capture(hold_id=hold_id(ANN, 7), idempotency_key="k"),
        Void(hold_id=hold_id(ANN, 7), idempotency_key="k"),
        Extend(hold_id=hold_id(ANN, 7), idempotency_key="k", expires_in_seconds=5),
    ],
    ids=["capture", "void", "extend"],
)
def test_unknown_hold_is_not_found(command: Command) -> None:
    row = held().row(command)
    assert (row.rejection, row.held_after) == ("hold_not_found", 60)


def test_hold_of_a_decision_that_is_none_is_not_found() -> None:
    ledger = held()
    ledger.row(holding(41, key="refused"))
    row = ledger.row(Void(hold_id=hold_id(ANN, 2), idempotency_key="v"))
    assert row.rejection == "hold_not_found"


def test_frozen_account_moves_nothing_and_gives_back() -> None:
    ledger = held(60)
    ledger.row(Freeze(account_id=ANN, idempotency_key="freeze"))
    for command in (holding(1, key="more"), capturing(), extending(expires_in_seconds=5)):
        assert ledger.row(command).rejection == "account_frozen"
    assert ledger.row(voiding()).rejection is None
    assert ledger.ann.held == 0


def test_holds_end_on_a_frozen_account_as_well() -> None:
    ledger = held(60, expires_in_seconds=1)
    ledger.row(Freeze(account_id=ANN, idempotency_key="freeze"))
    ledger.row(Unfreeze(account_id=ANN, idempotency_key="unfreeze"), NOW + SECOND)
    assert ledger.expired() == [expiry_key(FIRST)]


def test_account_with_open_holds_cannot_be_closed() -> None:
    ledger = held(60)
    error = result_of_row(ledger.row(Close(account_id=ANN, idempotency_key="close"))).error
    assert error is not None
    assert (error.code, error.details) == ("account_has_holds", {"held": "60"})
    ledger.row(voiding())
    assert ledger.row(Close(account_id=ANN, idempotency_key="close again")).rejection is None
    assert ledger.row(capturing()).rejection == "account_closed"


def test_account_has_only_so_many_open_holds() -> None:
    many = AccountFeatures(MAX_OPEN_HOLDS - 1, None, MAX_OPEN_HOLDS - 1, NOW + SECOND)
    ledger = Ledger(msgspec.structs.replace(RICH, balance=MAX_OPEN_HOLDS * 2, features=many))
    assert ledger.row(holding(1)).rejection is None
    assert ledger.row(holding(1, key="one more")).rejection == "too_many_holds"
    ledger.row(voiding())
    assert ledger.row(holding(1, key="another")).rejection is None


def test_what_has_ended_is_released_before_the_next_command_is_decided() -> None:
    ledger = held(60, expires_in_seconds=10)
    debit = Debit(account_id=ANN, idempotency_key="d", amount=100, reference="r")
    end_us = NOW + 10 * SECOND
    row = ledger.row(debit, end_us)
    ((index, expired),) = ledger.batch.expired
    assert (row.rejection, row.held_after, row.balance_after) == (None, 0, 0)
    assert index == 0
    assert (expired.seq, expired.kind, expired.side, expired.amount, expired.held_after) == (-2, 13, 0, 60, 0)
    assert (expired.idempotency_key, expired.created_at_us) == (f"expiry:{FIRST}", end_us)
    assert (ledger.hold().status, ledger.hold().ended_at_us) == (int(HoldStatus.EXPIRED), end_us)


def test_hold_lasts_to_its_last_microsecond() -> None:
    ledger = held(60, expires_in_seconds=10)
    assert ledger.row(capturing(), NOW + 10 * SECOND - 1).rejection is None
    assert ledger.expired() == []


def test_holds_end_in_the_order_of_their_ends_and_once() -> None:
    ledger = Ledger()
    for key, seconds in (("a", 30), ("b", 10), ("c", 20), ("d", 100)):
        ledger.row(holding(10, key=key, expires_in_seconds=seconds))
    assert ledger.decide(Expiry(account_id=ANN), NOW + 50 * SECOND).row is None
    assert ledger.expired() == [expiry_key(hold_id(ANN, number)) for number in (2, 3, 1)]
    assert ledger.ann.held == 10
    ledger.decide(Expiry(account_id=ANN), NOW + 50 * SECOND)
    assert len(ledger.expired()) == 3


def test_clock_that_goes_back_does_not_bring_a_hold_back_or_move_its_end() -> None:
    ledger = held(60, expires_in_seconds=10)
    later = NOW + 5 * SECOND
    ledger.row(Credit(account_id=ANN, idempotency_key="c", amount=1, reference="r"), later)
    row = ledger.row(holding(1, key="after the jump", expires_in_seconds=10), NOW - 100 * SECOND)
    # The account's time does not go back, so neither does the end that is counted from it.
    assert row.created_at_us == later
    assert ledger.hold(2).expires_at_us == later + 10 * SECOND
    ledger.decide(Expiry(account_id=ANN), NOW + 10 * SECOND)
    ledger.decide(Expiry(account_id=ANN), NOW)
    assert ledger.expired() == [expiry_key(FIRST)]
    assert ledger.row(capturing(), NOW).rejection == "hold_expired"


def test_transaction_releases_what_has_ended_on_every_account_that_it_touches() -> None:
    ledger = held(60, expires_in_seconds=10)
    entries = (
        PostEntry(account_id=BOB, side="credit", amount=100),
        PostEntry(account_id=ANN, side="debit", amount=100),
    )
    outcome = ledger.decide(Post(idempotency_key="p", reference="r", entries=entries), NOW + 10 * SECOND)
    assert outcome.row is not None
    assert outcome.row.rejection is None
    assert ledger.expired() == [expiry_key(FIRST)]


@pytest.mark.parametrize(
    "command",
    [
        holding(60, expires_in_seconds=5, metadata={"a": "b"}),
        holding(60, expires_at=moment_of(NOW + 77)),
        holding(101),
    ],
    ids=["seconds", "moment", "refused"],
)
def test_repeated_hold_is_answered_from_the_first(command: Hold) -> None:
    ledger = Ledger()
    first, second = ledger.decide(command), ledger.decide(command, NOW + 1)
    assert second == Outcome(first.row, replayed=True)


def test_repeated_capture_void_and_extend_are_answered_from_the_first() -> None:
    ledger = held(60)
    for command in (
        extending(expires_in_seconds=5),
        extending("moment", expires_at=moment_of(NOW + 5 * SECOND)),
        capturing(10, final=False, reference="r", metadata={"a": "b"}),
        capturing(1_000, key="refused"),
        voiding(),
        capturing(key="late"),
    ):
        first, second = ledger.decide(command), ledger.decide(command, NOW + 1)
        assert second == Outcome(first.row, replayed=True)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (holding(60), holding(61), "amount"),
        (holding(60), holding(60, expires_in_seconds=5), "expires_in_seconds"),
        (holding(60), holding(60, expires_at=moment_of(NOW + 5)), "expires_at"),
        (capturing(5), capturing(6), "amount"),
        (capturing(5), capturing(5, final=False), "final"),
        (capturing(5), capturing(5, allow_overage=True), "allow_overage"),
        (capturing(), capturing(60), "amount"),
        (extending(expires_in_seconds=5), extending(expires_in_seconds=6), "expires_in_seconds"),
        (voiding("k"), Void(hold_id=hold_id(ANN, 9), idempotency_key="k"), "hold_id"),
    ],
)
def test_other_request_under_the_same_key_is_refused(first: Command, second: Command, field: str) -> None:
    ledger = held(60, key="before")
    ledger.decide(first)
    outcome = ledger.decide(second)
    assert outcome.refusal is not None
    assert outcome.refusal.details == {"fields": [field]}


def test_hold_takes_one_end_at_most_and_extension_needs_one() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(ValidationError, match="not both"):
        holding(expires_in_seconds=5, expires_at=moment)
    with pytest.raises(ValidationError, match="not both"):
        extending(expires_in_seconds=5, expires_at=moment)
    with pytest.raises(ValidationError, match="give expires_in_seconds or expires_at"):
        extending()


@pytest.mark.parametrize("seconds", [0, -1, MAX_HOLD_SECONDS + 1, 1.5, True, "1.5", "", "٣"])
def test_seconds_out_of_bounds_are_refused(seconds: object) -> None:
    with pytest.raises(ValidationError, match="from 1 to 31622400"):
        holding(expires_in_seconds=seconds)


@pytest.mark.parametrize("moment", [datetime(2030, 1, 1), datetime.max.replace(tzinfo=UTC) - timedelta(days=1)])  # noqa: DTZ001
def test_moment_is_aware(moment: datetime) -> None:
    if moment.tzinfo is None:
        with pytest.raises(ValidationError, match="timezone"):
            holding(expires_at=moment)
    else:
        assert Ledger().row(holding(expires_at=moment)).rejection == "expires_at_out_of_range"


def test_same_moment_in_another_zone_is_the_same_request() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    elsewhere = moment.astimezone(ZoneInfo("Asia/Tokyo"))
    assert encode_command(holding(expires_at=elsewhere), "store_a") == encode_command(
        holding(expires_at=moment), "store_a"
    )


def test_commands_on_a_hold_go_to_its_account() -> None:
    assert capturing().account_id == ANN
    with pytest.raises(ValidationError, match="must be the hold's account"):
        Void(account_id=BOB, hold_id=FIRST, idempotency_key="k")
    with pytest.raises(ValidationError, match="hold_id"):
        Void(hold_id="cch_1", idempotency_key="k")


def test_keys_of_ends_belong_to_the_ledger() -> None:
    with pytest.raises(ValidationError, match="belongs to ends of holds"):
        Credit(account_id=ANN, idempotency_key=expiry_key(FIRST), amount=1, reference="r")
    assert expiry_key(FIRST) == f"expiry:{FIRST}"


def test_expiry_cannot_be_sent_by_callers() -> None:
    with pytest.raises(InvalidCommand, match="must be one of the commands"):
        addressed(Expiry(account_id=ANN), "store_default")


@pytest.mark.parametrize("status", [HoldStatus.CAPTURED, HoldStatus.VOIDED, HoldStatus.EXPIRED])
@pytest.mark.parametrize("after", [HoldStatus.CAPTURED, HoldStatus.VOIDED, HoldStatus.EXPIRED])
def test_what_has_ended_never_changes(status: HoldStatus, after: HoldStatus) -> None:
    ended = HoldState(int(status), 5, 5, 0, "r", NOW, NOW + 1, NOW)
    with pytest.raises(ArithmeticError):
        end(ended, after, NOW)
