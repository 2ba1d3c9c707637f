"""What was answered just before is marked as a repeat also where no announcement came, and asks Postgres."""

from collections.abc import Callable

import pytest

from creditlane import Client, Credit, Settings
from creditlane.producer.client._async.listener import AsyncListener
from creditlane.producer.client._sync.listener import Listener

pytestmark = pytest.mark.usefixtures("running_worker")

MakeClient = Callable[[Settings], Client]


@pytest.fixture
def half_applied(make_client: MakeClient, settings: Settings) -> list[Credit]:
    """Return credits of which the first half was applied just now, for another client."""
    client = make_client(settings)
    account = client.open_account(customer_id="c", name="n").id
    sent = [Credit(account_id=account, amount=1, reference="r", idempotency_key=f"k{n}") for n in range(4)]
    for result in client.wait_many(client.enqueue_many(sent[:2]), timeout=10.0):
        result.raise_for_rejection()
    return sent


def test_in_each_client(
    half_applied: list[Credit], make_client: MakeClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for listener in (Listener, AsyncListener):
        monkeypatch.setattr(listener, "start", lambda _: None)
    client = make_client(settings)

    results = client.wait_many(client.enqueue_many(half_applied), timeout=10.0)

    assert {result.idempotency_key: result.replayed for result in results} == {
        "k0": True,
        "k1": True,
        "k2": False,
        "k3": False,
    }
