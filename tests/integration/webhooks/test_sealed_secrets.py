"""Secrets that are sealed in Postgres sign as others do; without their key nothing is sent, and others still are."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import structlog
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner, Result

from creditlane.cli.app import app
from creditlane.schemas.commands import OpenAccount
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.events import new_secret
from creditlane.schemas.settings import Settings
from creditlane.schemas.webhook_secrets import SEALED_PREFIX, SETTING, SecretKeys, new_key
from creditlane.worker.jobs.process import JobsProcess
from creditlane.worker.webhooks.delivery_round import deliver_round

from .publisher import Publisher
from .receiver import Receiver

OLD, NEW = new_key(), new_key()
OPEN_BOB = OpenAccount(account_id="cca_" + "b" * 32, idempotency_key="open bob", customer_id="bob")

Deliver = Callable[[], dict[str, int]]
Run = Callable[..., Result]


def with_keys(sending: Settings, *keys: str) -> Settings:
    return sending.model_copy(update={"webhook_secret_keys": ",".join(keys)})


@pytest.fixture
def run(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Run:
    """Runs `creditlane webhooks` and others with these keys."""

    def invoke(*arguments: str, keys: str = "") -> Result:
        return CliRunner().invoke(app, arguments, env={**environment_of(settings), SETTING: keys})

    return invoke


def kept(publisher: Publisher) -> list[tuple[str, str | None]]:
    return publisher.database.execute(
        "select secret, previous_secret from webhook_endpoints union all "
        "select secret, previous_secret from callback_secrets"
    ).fetchall()


def is_signed_with(receiver: Receiver, secret: str) -> bool:
    last = receiver.received[-1]
    Webhook(secret).verify(last.body, last.headers)
    return True


@pytest.mark.usefixtures("deliver")
def test_what_a_client_makes_with_a_key_is_sealed_and_signs(
    publisher: Publisher, receiver: Receiver, sending: Settings, make_client: Callable[[Settings], Any]
) -> None:
    """Given a client and a sender with a key, when an endpoint is made and its secret replaced, then Postgres has no
    secret in the clear, and what is sent is signed with those that the client was shown."""
    settings = with_keys(sending, NEW)
    client = make_client(settings)
    made = client.webhooks.create(url=receiver.url("/hook"))
    rotated = client.webhooks.rotate_secret(made.id)
    publisher.happen(OPEN_BOB)

    deliver_round(settings)

    assert all(str(secret).startswith(SEALED_PREFIX) for row in kept(publisher) for secret in row)
    assert is_signed_with(receiver, rotated.secret)
    assert is_signed_with(receiver, made.secret)


@pytest.mark.usefixtures("deliver")
def test_callbacks_are_signed_with_a_sealed_secret(
    publisher: Publisher, receiver: Receiver, sending: Settings, make_client: Callable[[Settings], Any]
) -> None:
    """Given callbacks whose secret the fan-out has made, when it is replaced, then both are sealed and both sign."""
    settings = with_keys(sending, NEW)
    publisher.happen(OPEN_BOB, callback_url=receiver.url("/call"))
    deliver_round(settings)
    first = SecretKeys(NEW).open(kept(publisher)[-1][0])
    assert is_signed_with(receiver, first)
    second = make_client(settings).webhooks.rotate_callback_secret()
    another = OPEN_BOB.model_copy(update={"account_id": "cca_" + "c" * 32, "idempotency_key": "open carol"})
    publisher.happen(another, callback_url=receiver.url("/call"))

    deliver_round(settings)

    assert is_signed_with(receiver, first)
    assert is_signed_with(receiver, second)
    assert all(secret is None or secret.startswith(SEALED_PREFIX) for row in kept(publisher) for secret in row)


@pytest.mark.usefixtures("deliver")
@pytest.mark.parametrize("keys", [(), (OLD,)], ids=["no key", "another key"])
def test_without_its_key_an_endpoint_gets_nothing_and_the_others_do(
    keys: tuple[str, ...],
    publisher: Publisher,
    receiver: Receiver,
    sending: Settings,
) -> None:
    """Given an endpoint whose key a process lacks, then its event waits without a failed attempt and the log names the
    setting; once the key is there, it is sent."""
    secret = new_secret()
    sealed = publisher.add_endpoint(receiver.url("/sealed"), secret=SecretKeys(NEW).seal(secret))
    publisher.add_endpoint(receiver.url("/clear"))
    publisher.happen(OPEN_BOB)

    with structlog.testing.capture_logs() as lines:
        done = deliver_round(with_keys(sending, *keys))

    (line,) = [line for line in lines if line["event"] == "endpoints get nothing"]
    assert SETTING in line["error"]
    assert (done["delivered"], [each.path for each in receiver.received]) == (1, ["/clear"])
    (row,) = publisher.deliveries(sealed)
    assert (row["status"], row["attempts"], row["error"]) == (1, 0, None)
    publisher.database.execute("update webhook_endpoints set sender = null, sender_until = null")
    assert deliver_round(with_keys(sending, NEW))["delivered"] == 1
    assert is_signed_with(receiver, secret)


@pytest.mark.usefixtures("deliver")
@pytest.mark.parametrize("key", ["", NEW], ids=["in the clear", "under a new key"])
def test_a_secret_whose_key_is_lost_is_replaced_at_once(
    key: str, publisher: Publisher, receiver: Receiver, sending: Settings, make_client: Callable[[Settings], Any]
) -> None:
    """Given secrets of an endpoint and of callbacks whose key is lost, when they are replaced, then the new ones sign,
    though those before them, which sign for a day, cannot be read."""
    lost, settings = SecretKeys(OLD).seal(new_secret()), with_keys(sending, key)
    publisher.add_endpoint(receiver.url("/hook"), secret=lost)
    publisher.database.execute("insert into callback_secrets (store_id, secret) values (1, %s)", [lost])
    client = make_client(settings)
    hook = client.webhooks.rotate_secret(client.webhooks.list()[0].id).secret
    call = client.webhooks.rotate_callback_secret()
    publisher.happen(OPEN_BOB, callback_url=receiver.url("/call"))

    done = deliver_round(settings)

    assert done["delivered"] == len(receiver.received) == 2
    for each in receiver.received:
        Webhook(hook if each.path == "/hook" else call).verify(each.body, each.headers)
        assert "creem-signature-previous" not in each.headers


@pytest.mark.usefixtures("deliver")
@pytest.mark.parametrize(
    "kept_secret", ["whsec_", "whsec_a", "whsec_%%", "whsec_\u00e9", SEALED_PREFIX, SEALED_PREFIX + "\u00e9"], ids=ascii
)
def test_what_is_no_secret_holds_up_no_other_endpoint(
    kept_secret: str, publisher: Publisher, receiver: Receiver, sending: Settings
) -> None:
    """Given an endpoint whose secret somebody wrote by hand, then nothing is sent to it, the log says so, and others
    get theirs in the same round."""
    publisher.add_endpoint(receiver.url("/by hand"), secret=kept_secret)
    publisher.add_endpoint(receiver.url("/right"))
    publisher.happen(OPEN_BOB)

    with structlog.testing.capture_logs() as lines:
        done = deliver_round(with_keys(sending, NEW))

    assert (done["delivered"], done["failed"], [each.path for each in receiver.received]) == (1, 0, ["/right"])
    assert [line["event"] for line in lines] == ["endpoints get nothing"]


@pytest.mark.usefixtures("deliver")
def test_seal_brings_everything_under_the_first_key(
    publisher: Publisher, receiver: Receiver, sending: Settings, run: Run
) -> None:
    """Given secrets in the clear and under an old key, when they are sealed, then the new key alone opens them, and
    doing it again changes nothing."""
    clear, old, before = new_secret(), new_secret(), new_secret()
    publisher.add_endpoint(receiver.url("/clear"), secret=clear, previous_secret=before)
    publisher.add_endpoint(receiver.url("/old"), secret=SecretKeys(OLD).seal(old))
    publisher.database.execute("insert into callback_secrets (store_id, secret) values (1, %s)", [clear])
    publisher.happen(OPEN_BOB)

    first = json.loads(run("webhooks", "seal", "--json", keys=f"{NEW},{OLD}").stdout)
    second = run("webhooks", "seal", keys=f"{NEW},{OLD}")
    deliver_round(with_keys(sending, NEW))

    assert first == {"sealed": 4, "in_the_clear": 0, "changed": 3, "unreadable": 0}
    assert (second.exit_code, second.stdout) == (0, "0 changed, 0 under a key that is not here\n")
    keys = SecretKeys(NEW)
    opened = {None if secret is None else keys.open(secret) for row in kept(publisher) for secret in row}
    assert opened == {clear, old, before, None}
    assert {each.path for each in receiver.received} == {"/clear", "/old"}


def test_what_no_key_opens_is_left_and_reported(publisher: Publisher, run: Run) -> None:
    lost = SecretKeys(OLD).seal(new_secret())
    publisher.add_endpoint("https://example.com", secret=lost)
    publisher.add_endpoint("https://example.org")

    done = run("webhooks", "seal", keys=NEW)

    assert (done.exit_code, done.stdout) == (1, "1 changed, 1 under a key that is not here\n")
    assert lost in {secret for secret, _ in kept(publisher)}


def test_seal_does_what_it_can_of_a_row(publisher: Publisher, run: Run) -> None:
    """Given a secret in the clear after one whose key is lost, then that is sealed, and the other left and reported."""
    secret, lost = new_secret(), SecretKeys(OLD).seal(new_secret())
    publisher.add_endpoint("https://example.com", secret=secret, previous_secret=lost)

    done = run("webhooks", "seal", keys=NEW)

    assert (done.exit_code, done.stdout) == (1, "1 changed, 1 under a key that is not here\n")
    ((sealed, previous),) = kept(publisher)
    assert (SecretKeys(NEW).open(sealed), previous) == (secret, lost)


def test_seal_forgets_secrets_that_sign_no_more(publisher: Publisher, run: Run) -> None:
    """Given secrets that were replaced longer than a day ago, in the clear and under a lost key, then they are gone."""
    for number, old in enumerate((new_secret(), SecretKeys(OLD).seal(new_secret()))):
        until = {"previous_secret": old, "previous_secret_until": datetime(2026, 1, 1, tzinfo=UTC)}
        publisher.add_endpoint(f"https://{number}.example.com", secret=SecretKeys(NEW).seal(new_secret()), **until)

    done = run("webhooks", "seal", keys=NEW)

    assert (done.exit_code, done.stdout) == (0, "2 changed, 0 under a key that is not here\n")
    assert [previous for _, previous in kept(publisher)] == [None, None]


def test_seal_without_a_key_says_what_to_do(run: Run) -> None:
    refused = run("webhooks", "seal")

    assert isinstance(refused.exception, ConfigurationError)
    assert SETTING in str(refused.exception)


def test_status_says_how_secrets_are_kept(publisher: Publisher, run: Run) -> None:
    publisher.add_endpoint("https://example.com", secret=SecretKeys(NEW).seal(new_secret()))
    publisher.add_endpoint("https://example.org")

    shown = run("status").stdout
    report = json.loads(run("status", "--json").stdout)

    assert f"secrets       of webhooks: 1 sealed, 1 in the clear; set {SETTING}" in shown
    assert report["webhook_secrets"] == {"sealed": 1, "in_the_clear": 1}


def test_a_secret_that_is_changed_while_all_are_sealed_is_left_as_it_is(
    publisher: Publisher, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a secret that is replaced between the read and the change, then the new one stands."""
    from creditlane.producer.operations import webhook_sealing

    publisher.add_endpoint("https://example.com")
    replaced = SecretKeys(NEW).seal(new_secret())
    seal = webhook_sealing._sealed

    def replacing(keys: SecretKeys, secret: str | None) -> str | None:
        publisher.database.execute("update webhook_endpoints set secret = %s", [replaced])
        return seal(keys, secret)

    monkeypatch.setattr(webhook_sealing, "_sealed", replacing)
    with psycopg.connect(database_url, autocommit=True) as connection:
        report = webhook_sealing.seal_all(connection, SecretKeys(NEW))

    assert report.changed == 0
    assert kept(publisher) == [(replaced, None)]


def test_a_deliveries_process_with_a_key_that_is_none_does_not_start(sending: Settings) -> None:
    with pytest.raises(ConfigurationError, match=SETTING):
        JobsProcess(with_keys(sending, "hunter2"), "deliveries")
    JobsProcess(with_keys(sending, "hunter2"), "jobs")
