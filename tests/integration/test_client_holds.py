"""The clients set parts of balances aside, capture, void and extend them, and read them back."""

from datetime import UTC, datetime, timedelta

import pytest

from creditlane import (
    AccountFrozen,
    AccountHasHolds,
    AccountHold,
    AccountNotFound,
    Capture,
    CaptureExceedsHold,
    Client,
    Debit,
    ExpiresAtOutOfRange,
    Hold,
    HoldCaptured,
    HoldNotFound,
    HoldVoided,
    IdempotencyKeyMismatch,
    InsufficientBalance,
    InvalidCommand,
    Settings,
)

pytestmark = [pytest.mark.usefixtures("running_worker"), pytest.mark.conformance]

DEADLINE_SECONDS = 60.0
HOUR = 3_600
METADATA = {"model": "large", "a": ""}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def hold(client: Client, account_id: str, amount: int = 60, key: str = "hold") -> AccountHold:
    return client.hold(account_id, amount, reference="call", idempotency_key=key, expires_in_seconds=HOUR)


def test_a_hold_takes_out_of_what_is_available_and_its_capture_out_of_the_balance(client: Client) -> None:
    """Given a hold, then debits cannot take it; when it is captured in part for the last time, the rest is free."""
    account = client.open_account(customer_id="ann", initial_balance=100)

    held = client.hold(
        account.id, 60, reference="call", idempotency_key="hold", expires_in_seconds=HOUR, metadata=METADATA
    )
    with pytest.raises(InsufficientBalance) as refused:
        client.debit(account.id, 41, reference="r", idempotency_key="too much")
    now = client.account(account.id)

    assert (held.status, held.amount, held.captured, held.remaining) == ("open", 60, 0, 60)
    assert (held.account_id, held.reference, held.metadata, held.ended_at) == (account.id, "call", METADATA, None)
    assert held.expires_at == held.created_at + timedelta(seconds=HOUR)
    assert client.hold_by_id(held.id) == held
    assert (now.balance, now.held, now.available) == (100, 60, 40)
    assert refused.value.details == {"needed": "41", "available": "40"}

    done = client.capture(held.id, 25, idempotency_key="capture", metadata={"tokens": "25"})
    again = client.capture(held.id, 25, idempotency_key="capture", metadata={"tokens": "25"})
    after, account_after = client.hold_by_id(held.id), client.account(account.id)

    assert (done.side, done.amount, done.balance, done.reference, done.hold_id) == ("debit", 25, 75, "call", held.id)
    assert (again.transaction_id, again.replayed) == (done.transaction_id, True)
    assert (after.status, after.captured, after.remaining, after.ended_at) == ("captured", 25, 0, done.decided_at)
    assert (account_after.balance, account_after.held, account_after.available) == (75, 0, 75)
    transaction = client.transaction(str(done.transaction_id))
    assert (transaction.reference, transaction.metadata, len(transaction.entries)) == ("call", {"tokens": "25"}, 1)


def test_a_hold_is_captured_in_parts_and_above_what_is_left_only_where_that_is_allowed(client: Client) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)
    held = hold(client, account.id)

    client.capture(held.id, 20, idempotency_key="1", final=False, reference="first part")
    middle = client.hold_by_id(held.id)
    with pytest.raises(CaptureExceedsHold) as exceeded:
        client.capture(held.id, 41, idempotency_key="2")
    with pytest.raises(InsufficientBalance):
        client.capture(held.id, 81, idempotency_key="3", allow_overage=True)
    last = client.capture(held.id, 80, idempotency_key="4", allow_overage=True)
    with pytest.raises(HoldCaptured):
        client.capture(held.id, 1, idempotency_key="5")

    assert (middle.status, middle.captured, middle.remaining) == ("open", 20, 40)
    assert exceeded.value.details == {"remaining": "40"}
    assert (last.balance, client.hold_by_id(held.id).captured) == (0, 100)
    assert [entry.reference for entry in client.entries(account.id)] == ["call", "first part", "initial_balance"]


def test_voiding_gives_back_and_extending_moves_the_end(client: Client) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)
    held = hold(client, account.id)
    later = datetime.now(UTC) + timedelta(days=3)

    moved = client.extend(held.id, expires_at=later)
    shorter = client.extend(held.id, expires_in_seconds=HOUR)
    with pytest.raises(ExpiresAtOutOfRange):
        client.extend(held.id, expires_at=held.created_at)
    voided = client.void(held.id, idempotency_key="void")
    again = client.void(held.id, idempotency_key="void")
    with pytest.raises(HoldVoided):
        client.extend(held.id, expires_in_seconds=HOUR)
    with pytest.raises(IdempotencyKeyMismatch):
        client.capture(held.id, idempotency_key="void")

    assert (moved.status, moved.expires_at, moved.remaining) == ("open", later, 60)
    assert shorter.expires_at < later
    assert (voided.status, voided.captured, voided.remaining) == ("voided", 0, 0)
    assert again == voided
    # Made again it is the first one, as it is now.
    assert hold(client, account.id) == voided
    assert client.account(account.id).available == 100


def test_holds_are_listed_newest_first_and_go_in_bulk_with_tickets_that_tell_of_them(client: Client) -> None:
    """Given holds of several statuses, then they are listed by them; commands of a bulk go in order."""
    account = client.open_account(customer_id="ann", initial_balance=100)
    first, second, third, fourth = (hold(client, account.id, 10, f"hold {number}") for number in range(4))
    client.capture(second.id, idempotency_key="capture")
    client.void(third.id)

    assert [each.id for each in client.holds(account.id)] == [fourth.id, third.id, second.id, first.id]
    assert [each.id for each in client.holds(account.id, status="open")] == [fourth.id, first.id]
    assert [each.id for each in client.holds(account.id, status="open", limit=1)] == [fourth.id]
    assert [each.id for each in client.holds(account.id, status="captured")] == [second.id]
    assert [each.id for each in client.holds(account.id, status="voided")] == [third.id]
    assert list(client.holds(account.id, status="expired")) == []

    commands = [
        Hold(account_id=account.id, amount=50, reference="call", idempotency_key="bulk hold", expires_in_seconds=HOUR),
        Capture(hold_id=first.id, idempotency_key="bulk capture"),
        Debit(account_id=account.id, amount=41, reference="r", idempotency_key="bulk debit"),
    ]

    held, captured, debited = (client.wait(ticket) for ticket in client.enqueue_many(commands))

    assert (held.status, held.kind, held.amount, held.balance) == ("applied", "hold", 50, 90)
    assert held.hold_id is not None
    assert held.expires_at == client.hold_by_id(held.hold_id).expires_at
    assert (captured.status, captured.hold_id, captured.balance) == ("applied", first.id, 80)
    assert debited.error is not None
    assert debited.error.code == "insufficient_balance"


def test_accounts_in_other_states_take_no_holds_and_one_with_holds_is_not_closed(client: Client) -> None:
    """Given a hold, then closing is refused; on a frozen account it can be voided, and nothing else."""
    account = client.open_account(customer_id="ann", initial_balance=100)
    held = hold(client, account.id)

    with pytest.raises(AccountHasHolds) as refused:
        client.close_account(account.id)
    client.freeze(account.id)
    with pytest.raises(AccountFrozen):
        hold(client, account.id, 1, "frozen")
    with pytest.raises(AccountFrozen):
        client.capture(held.id, idempotency_key="frozen capture")
    assert client.void(held.id).status == "voided"
    client.close_account(account.id)

    assert refused.value.details == {"held": "60"}


def test_unknown_holds_and_bad_arguments_are_refused_by_name(client: Client) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)
    unknown = f"cch_{account.id[4:]}99"

    with pytest.raises(HoldNotFound):
        client.hold_by_id(unknown)
    with pytest.raises(HoldNotFound):
        client.capture(unknown, idempotency_key="unknown")
    with pytest.raises(AccountNotFound):
        list(client.holds("cca_" + "0" * 32))
    with pytest.raises(InvalidCommand, match="hold_id"):
        client.void("cct_1")
    with pytest.raises(InvalidCommand, match="hold_id"):
        client.hold_by_id(account.id)
    with pytest.raises(InvalidCommand, match="status"):
        list(client.holds(account.id, status="closed"))  # type: ignore[arg-type]
    with pytest.raises(InvalidCommand, match="expires_in_seconds"):
        client.hold(account.id, 1, reference="r", idempotency_key="0 s", expires_in_seconds=0)
    with pytest.raises(InvalidCommand, match="not both"):
        client.extend(unknown, expires_in_seconds=1, expires_at=datetime.now(UTC))
    with pytest.raises(InvalidCommand, match="expires"):
        client.extend(unknown)
