"""`creditlane webhooks`: endpoints are managed and tried out, and what was sent is seen, from the command line."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from creditlane import CreditlaneError, InvalidCommand, Settings
from creditlane.cli.app import app
from creditlane.schemas.errors import OutcomeUnknown, WebhookNotFound

from ..roles import settings_of
from .webhooks.receiver import Receiver, plain

URL = "https://example.com/hook"
UNKNOWN = "wh_" + "0" * 32
#: How long a process may take to stop, in seconds.
STOP_SECONDS = 20.0

Run = Callable[..., Result]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings of an operator who lets webhooks go to this machine."""
    return settings.model_copy(update={"webhook_allowed_networks": "loopback"})


@pytest.fixture
def webhooks(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Run:
    """Runs `creditlane webhooks …`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["webhooks", *arguments], env=environment_of(settings))

    return run


@pytest.fixture
def answer_of(webhooks: Run) -> Callable[..., Any]:
    """Runs `creditlane webhooks … --json` and gives what it prints."""

    def run(*arguments: str) -> Any:
        done = webhooks(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def delivering(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Iterator[None]:
    """An RQ process that delivers."""
    command = [sys.executable, "-m", "creditlane.worker.jobs", "--queue", "deliveries"]
    process = subprocess.Popen(command, env=environment_of(settings_of("jobs", settings)), stdout=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait(STOP_SECONDS)


def error_of(done: Result) -> CreditlaneError:
    assert isinstance(done.exception, CreditlaneError), done.output
    return done.exception


def test_an_endpoint_is_made_listed_changed_and_deleted(webhooks: Run, answer_of: Callable[..., Any]) -> None:
    made = answer_of("create", URL, "--event", "balance.low", "--event", "credits.consumed", "--name", "Billing")

    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["name"], made["events"]) == (URL, "Billing", ["balance.low", "credits.consumed"])
    assert answer_of("show", made["id"]) == {**made, "secret": None}
    assert answer_of("list") == {"webhooks": [{**made, "secret": None}]}

    changed = answer_of("update", made["id"], "--status", "disabled", "--all-events", "--name", "")
    assert (changed["status"], changed["events"], changed["name"]) == ("disabled", [], None)
    assert answer_of("rotate", made["id"])["secret"] not in {None, made["secret"]}

    assert webhooks("delete", made["id"]).output == f"Webhook {made['id']} is deleted\n"
    assert webhooks("list").output == "0 webhooks\n"


def test_a_person_reads_lines(webhooks: Run) -> None:
    created = webhooks("create", URL).output.splitlines()
    identifier = created[0].split()[1]

    assert [line.split()[0] for line in created][-1] == "secret"
    assert webhooks("rotate", identifier).output.startswith("whsec_")
    heads, row = webhooks("list").output.splitlines()
    assert heads.split() == ["webhook", "status", "name", "url", "events"]
    assert row.split() == [identifier, "enabled", "-", URL, "all"]
    assert webhooks("deliveries", identifier).output == "0 deliveries\n"
    assert webhooks("deliveries", "callbacks").output == "0 deliveries\n"


@pytest.mark.usefixtures("delivering")
def test_a_test_event_is_sent_seen_and_sent_again(
    webhooks: Run, answer_of: Callable[..., Any], receiver: Receiver
) -> None:
    receiver.answer("/hook", plain(200, b"thanks \x1b[2J"))
    made = answer_of("create", receiver.url("/hook"), "--event", "balance.low")

    done = webhooks("test", made["id"])

    assert done.exit_code == 0, done.output
    (delivery,) = answer_of("deliveries", made["id"])["deliveries"]
    assert done.output == f"{delivery['event_id']}: 200 in {delivery['latency_ms']} ms  thanks \\x1b[2J\n"
    assert (delivery["event_type"], delivery["status"], delivery["attempts"]) == ("webhook.test", "delivered", 1)
    assert webhooks("event", made["id"], delivery["event_id"]).output.strip() == receiver.received[0].body.decode()

    assert answer_of("resend", made["id"], delivery["event_id"]) == {"resent": 1}
    receiver.wait_for(lambda: len(receiver.received) == 2)
    assert {each.webhook_id for each in receiver.received} == {delivery["event_id"]}
    assert "thanks \\x1b[2J" in webhooks("deliveries", made["id"]).output


@pytest.mark.usefixtures("delivering")
def test_a_test_event_that_is_not_taken_ends_with_1(
    webhooks: Run, answer_of: Callable[..., Any], receiver: Receiver
) -> None:
    receiver.answer("/hook", plain(500, b"no"))
    made = answer_of("create", receiver.url("/hook"))

    done = webhooks("test", made["id"])

    assert (done.exit_code, "500 in" in done.output) == (1, True)


def test_where_nobody_delivers_a_test_says_what_is_missing(webhooks: Run, answer_of: Callable[..., Any]) -> None:
    made = answer_of("create", URL)

    error = error_of(webhooks("test", made["id"], "--wait", "0"))

    assert isinstance(error, OutcomeUnknown)
    assert "creditlane jobs work --queue deliveries" in error.message


def test_what_failed_is_sent_again_from_a_moment_on(webhooks: Run, answer_of: Callable[..., Any]) -> None:
    made = answer_of("create", URL)

    assert answer_of("resend", made["id"], "--failed-since", "2026-01-01") == {"resent": 0}
    for wrong in ([made["id"]], [made["id"], "evt_1", "--failed-since", "2026-01-01"]):
        assert webhooks("resend", *wrong).exit_code == 2
    assert webhooks("resend", "callbacks", "--failed-since", "2026-01-01").exit_code == 2


def test_the_secret_of_callbacks_is_printed_once(webhooks: Run, answer_of: Callable[..., Any]) -> None:
    first = answer_of("callback-secret")

    assert first["store_id"] == "store_default"
    assert webhooks("callback-secret").output.strip() not in {"", first["secret"]}


def test_mistakes_are_said_in_one_line(webhooks: Run) -> None:
    assert isinstance(error_of(webhooks("show", UNKNOWN)), WebhookNotFound)
    assert isinstance(error_of(webhooks("create", "http://example.com")), InvalidCommand)
    assert isinstance(error_of(webhooks("create", URL, "--event", "nothing")), InvalidCommand)
    assert isinstance(error_of(webhooks("create", URL, "--store", "store_nowhere")), InvalidCommand)
    for command in (["callback-secret"], ["list"], ["deliveries", "callbacks"], ["show", UNKNOWN]):
        error = error_of(webhooks(*command, "--store", "store_nowhere"))
        assert isinstance(error, InvalidCommand)
        assert "there is no store store_nowhere" in error.message
