"""What a receiver gets over HTTP is verified by the official client, whatever it says; and so is it managed.

Everything is real: API, worker and RQ process are processes of their own, and the receiver is an HTTP server.
Needs Node and npm, which fetches the client; nothing else from outside.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import standardwebhooks

from creditlane import Client, InsufficientBalance, Settings
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import CommandDeadLettered
from creditlane.schemas.events import (
    COMMAND_APPLIED,
    COMMAND_DEAD_LETTERED,
    COMMAND_REJECTED,
    EVENT_TYPES,
    TEST_EVENT,
)
from creditlane.schemas.roles import Part

from ..integration.webhooks.receiver import Received, Receiver, plain
from ..roles import settings_of

HERE = Path(__file__).parent
#: How long a process may take to start and to stop, in seconds.
DEADLINE_SECONDS = 60.0
#: What the official client has types for.
TYPED = ("credits.granted", "credits.consumed")
CALLBACK_TYPES = (COMMAND_APPLIED, COMMAND_REJECTED, COMMAND_DEAD_LETTERED)

GONE_THEN_FINE = (plain(410, b"moved out"), plain(200))

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="Node and npm are not installed, and the official client is a Node package",
)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings of an operator who lets webhooks go to this machine."""
    return settings.model_copy(
        update={"webhook_allowed_networks": "loopback", "wait_timeout_seconds": DEADLINE_SECONDS}
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def delivering(settings: Settings) -> Iterator[None]:
    """A worker, and an RQ process that delivers."""
    commands: dict[Part, list[str]] = {
        "worker": ["-m", "creditlane.worker"],
        "jobs": ["-m", "creditlane.worker.jobs", "--queue", "deliveries"],
    }
    processes = []
    for part, command in commands.items():
        values = settings_of(part, settings).model_dump(exclude_none=True)
        environment = {**os.environ, **{f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}}
        processes.append(subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL))
    yield
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(DEADLINE_SECONDS)


@pytest.fixture
def client(settings: Settings, delivering: None) -> Iterator[Client]:
    assert delivering is None
    with Client(settings) as client:
        yield client


@pytest.fixture
def run_node(sdk_directory: Path) -> Callable[..., Any]:
    """Runs a script with the official client and gives what it says."""

    def run(script: str, given: str = "", **environment: str) -> Any:
        done = subprocess.run(
            ["node", str(HERE / script)],  # noqa: S607 - whichever node is installed
            env={**os.environ, "SDK_DIRECTORY": str(sdk_directory), **environment},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def let_everything_happen(client: Client, database_url: str, callback_url: str) -> None:
    """Let every event happen, and every outcome of a command that names a callback."""
    account = client.open_account(customer_id="ann", name="Tokens", unit_label="tokens", initial_balance=100).id
    assert client.set_low_balance(account, 50).low_balance == 50
    debit = client.debit(account, 60, reference="job", idempotency_key="debit", callback_url=callback_url)
    with pytest.raises(InsufficientBalance):
        client.debit(account, 9_999, reference="job 2", idempotency_key="too much", callback_url=callback_url)
    client.reverse(account, str(debit.transaction_id))
    let_holds_happen(client, account)
    with psycopg.connect(database_url, autocommit=True) as connection:
        # What the ledger takes and its table does not: a command that nobody can decide.
        connection.execute("alter table journal add constraint spoilt check (reference is distinct from 'spoilt')")
    with pytest.raises(CommandDeadLettered):
        client.credit(account, 1, reference="spoilt", idempotency_key="spoilt", callback_url=callback_url)
    client.freeze(account)
    client.unfreeze(account)
    client.close_account(account)


def let_holds_happen(client: Client, account: str) -> None:
    """Let all happen to holds that can."""
    held = [client.hold(account, 1, reference="job", idempotency_key=f"hold {number}").id for number in range(3)]
    client.capture(held[0], idempotency_key="capture")
    client.void(held[1])
    client.extend(held[2], expires_in_seconds=1)
    assert wait_until(lambda: client.hold_by_id(held[2]).status == "expired", seconds=DEADLINE_SECONDS)


def types_of(received: list[Received]) -> set[str]:
    return {each.event["eventType"] for each in received}


def verifiable(received: list[Received], secret: str) -> list[dict[str, Any]]:
    """Return what the script takes, after the `standardwebhooks` package has verified it."""
    for each in received:
        standardwebhooks.Webhook(secret).verify(each.body, each.headers)
    return [
        {
            "body": each.body.decode(),
            "headers": each.headers,
            "secret": secret,
            "isTyped": each.event["eventType"] in TYPED,
        }
        for each in received
    ]


@needs_node
def test_the_official_client_verifies_everything_that_a_receiver_gets(
    client: Client, receiver: Receiver, database_url: str, run_node: Callable[..., Any]
) -> None:
    webhook = client.webhooks.create(url=receiver.url("/all"))
    callback_secret = client.webhooks.rotate_callback_secret()

    client.webhooks.send_test(webhook.id)
    let_everything_happen(client, database_url, receiver.url("/callback?x=1"))
    receiver.wait_for(lambda: types_of(receiver.at("/all")) >= {*EVENT_TYPES, TEST_EVENT})
    receiver.wait_for(lambda: types_of(receiver.at("/callback?x=1")) >= set(CALLBACK_TYPES))

    received = receiver.at("/all"), receiver.at("/callback?x=1")
    given = verifiable(received[0], str(webhook.secret)) + verifiable(received[1], callback_secret)
    verified = run_node("verify_webhooks.mjs", json.dumps(given))
    for each, found in zip([*received[0], *received[1]], verified, strict=True):
        event = each.event
        assert each.webhook_id == event["id"]
        for way in ("event", "legacy", "standard"):
            assert (found[way]["id"], found[way]["type"]) == (event["id"], event["eventType"]), found
            assert (found[way]["createdAt"], found[way]["data"]) == (event["created_at"], event["object"])
        assert found["forged"] == {"error": "WebhookVerificationError: Invalid webhook signature"}
        if event["eventType"] in TYPED:
            entity = found["entity"]["object"]
            assert entity["amountMinorUnits"] == event["object"]["amount_minor_units"]
            assert entity["bucketName"] == "Tokens"


@needs_node
def test_for_a_day_both_secrets_verify(
    client: Client, receiver: Receiver, database_url: str, run_node: Callable[..., Any]
) -> None:
    webhook = client.webhooks.create(url=receiver.url("/rotated"))
    rotated = client.webhooks.rotate_secret(webhook.id)

    client.webhooks.send_test(webhook.id)
    receiver.wait_for(lambda: len(receiver.at("/rotated")) == 1)

    secrets = (str(webhook.secret), str(rotated.secret))
    given = [each for secret in secrets for each in verifiable(receiver.at("/rotated"), secret)]
    verified = run_node("verify_webhooks.mjs", json.dumps(given))
    assert [found["event"].get("type") for found in verified] == [TEST_EVENT] * 2
    assert [found["standard"].get("type") for found in verified] == [TEST_EVENT] * 2

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update webhook_endpoints set previous_secret_until = now() - interval '1 second'")
    client.webhooks.send_test(webhook.id)
    receiver.wait_for(lambda: len(receiver.at("/rotated")) == 2)
    late = receiver.at("/rotated")[1:]
    assert len(verifiable(late, str(rotated.secret))) == 1
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifiable(late, str(webhook.secret))


def test_what_failed_is_shown_and_sent_again_under_its_id(client: Client, receiver: Receiver) -> None:
    webhook = client.webhooks.create(url=receiver.url("/gone"), events=["account.created"])
    started = datetime.now(UTC) - timedelta(minutes=1)
    receiver.answer("/gone", *GONE_THEN_FINE)
    client.open_account(customer_id="ann")
    receiver.wait_for(lambda: len(receiver.at("/gone")) == 1)

    def is_disabled() -> bool:
        return client.webhooks.get(webhook.id).status == "disabled"

    assert wait_until(is_disabled, seconds=DEADLINE_SECONDS)
    (failed,) = client.webhooks.deliveries(webhook.id)
    assert (failed.status, failed.attempts, failed.response_status) == ("failed", 1, 410)
    assert (failed.event_type, failed.response_body) == ("account.created", "moved out")
    assert "410" in (client.webhooks.get(webhook.id).disabled_reason or "")

    client.webhooks.update(webhook.id, status="enabled")
    assert client.webhooks.resend_failed(webhook.id, since=started) == 1
    receiver.wait_for(lambda: len(receiver.at("/gone")) == 2)

    first, second = receiver.at("/gone")
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)
    assert client.webhooks.delivery(webhook.id, first.webhook_id).body == first.body.decode()


@needs_node
def test_the_official_client_manages_webhooks(serve_api: Any, run_node: Callable[..., Any]) -> None:
    url, key = serve_api()

    seen = run_node("official_webhooks.mjs", SERVER_URL=url, API_KEY=key)

    created = seen["created"]
    assert created["secret"].startswith("whsec_")
    assert (created["object"], created["storeId"], created["deliveryMode"]) == ("webhook", "store_default", "http")
    assert (created["name"], created["status"], created["events"]) == ("Billing", "enabled", ["credits.granted"])
    assert (seen["everything"]["name"], seen["everything"]["events"]) == (None, [])
    assert seen["read"] == {name: value for name, value in created.items() if name != "secret"}
    updated = seen["updated"]
    assert (updated["name"], updated["status"], updated["events"]) == (None, "disabled", ["credits.consumed"])
    assert seen["listed"] == [created["id"], seen["everything"]["id"]]
    assert seen["deleted"]["id"] == created["id"]
    assert seen["gone"] == {"status": 404, "code": "not_found"}
    assert seen["plain"] == seen["foreign"] == {"status": 400, "code": "validation_error"}
    assert httpx2.get(f"{url}/v1/webhooks", headers={"x-api-key": key}).json()["pagination"]["total_records"] == 1
