"""What happens in the ledger reaches those who asked for it, in the words that are promised."""

from collections.abc import Callable

from creditlane.schemas.commands import Close, Debit, Freeze, OpenAccount, Reverse, Unfreeze
from creditlane.schemas.events import EVENT_TYPES

from .news import Newsroom
from .receiver import Receiver

ANN, BOB = "cca_" + "a" * 32, "cca_" + "b" * 32


def everything(newsroom: Newsroom) -> None:
    """Let every kind of event happen."""
    newsroom.happen(
        OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", name="Tokens", initial_balance=100),
        OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob"),
    )
    newsroom.database.execute("update accounts set low_balance = 50, low_balance_since = now()")
    (debit,) = newsroom.happen(Debit(account_id=ANN, idempotency_key="debit", amount=60, reference="job"))
    newsroom.happen(
        Debit(account_id=ANN, idempotency_key="too much", amount=600, reference="job 2"),
        Reverse(account_id=ANN, transaction_id=str(debit.transaction_id)),
        Freeze(account_id=ANN, idempotency_key="freeze"),
        Unfreeze(account_id=ANN, idempotency_key="unfreeze"),
        Close(account_id=ANN, idempotency_key="close"),
    )


def test_every_event_reaches_an_endpoint_that_wants_all(
    newsroom: Newsroom, receiver: Receiver, deliver: Callable[[], dict[str, int]]
) -> None:
    endpoint = newsroom.add_endpoint(receiver.url())
    everything(newsroom)

    done = deliver()

    types = [each.event["eventType"] for each in receiver.received]
    assert set(types) == set(EVENT_TYPES)
    assert done == {"fanned_out": 8, "delivered": 10, "failed": 0, "unfinished": 0}
    assert {row["status"] for row in newsroom.deliveries(endpoint)} == {2}
    assert newsroom.database.execute("select count(*) from outbox").fetchone() == (0,)
