"""`creditlane dead`: what could not be decided is listed, shown safely, and put back on its lane byte for byte."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
from typer.testing import CliRunner, Result

from creditlane import Client, CreditlaneError, InvalidCommand, OpenAccount, Settings
from creditlane.cli.app import app
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import NotMigrated

ACCOUNT = "cca_" + "5e" * 16
#: As another language may write it: other order, white space, an escape.
FOREIGN_BYTES = (
    b'{ "amount": "5", "kind": "debit", "v": 1, "store_id": "store_default", "reference": "caf\\u00e9",\n'
    b'"account_id": "' + ACCOUNT.encode() + b'", "idempotency_key": "foreign" }'
)
BROKEN_BYTES = b'{"v":9,"kind":"\x1b[2J"}\xff'

Dead = Callable[..., Result]
AddLetter = Callable[[bytes], str]


@pytest.fixture
def dead(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Dead:
    """Runs `creditlane dead …`."""

    def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, ["dead", *arguments], env={**environment_of(settings), **(environment or {})})

    return run


@pytest.fixture
def add_letter(database_url: str) -> AddLetter:
    """Adds a dead letter by hand."""

    def add(payload: bytes) -> str:
        identifier = str(uuid.uuid4())
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "insert into dead_letters "
                "values (1, %s, 3, '17-0', %s, 'foreign', 'undecodable', %s, clock_timestamp())",
                [identifier, payload, "it is \x1b[31mred"],
            )
        return identifier

    return add


def lane_of(settings: Settings, account_id: str) -> list[Any]:
    lane = Keys(settings.redis_prefix).lane(partition_of(account_id, settings.partitions or 0))
    with redis.Redis.from_url(settings.require_redis_url()) as server:
        return server.xrange(lane)


def error_of(result: Result) -> CreditlaneError:
    assert isinstance(result.exception, CreditlaneError), result.output
    return result.exception


def test_no_dead_letters(dead: Dead) -> None:
    assert dead("list").stdout == "0 dead letters\n"
    assert json.loads(dead("list", "--json").stdout) == {"dead_letters": []}
    assert dead("replay", "--all").stdout == "0 replayed, 0 refused\n"


@pytest.mark.usefixtures("running_worker")
def test_a_command_is_decided_once_its_cause_is_gone(dead: Dead, settings: Settings, database_url: str) -> None:
    """Given a command of a store that is not there yet, when it is created and all is replayed, then it applies."""
    with Client(settings.model_copy(update={"store": "store_late"})) as client:
        ticket = client.enqueue(OpenAccount(customer_id="ann", initial_balance=7, idempotency_key="open ann"))
        assert client.wait(ticket, timeout=30).status == "dead_lettered"
        assert "store_late" in dead("list").stdout
        with psycopg.connect(database_url) as connection:
            connection.execute("insert into stores (public_id, name) values ('store_late', 'Late')")

        replay = dead("replay", "--all")

        assert (replay.exit_code, replay.stdout) == (0, "1 replayed, 0 refused\n")
    with Client(settings.model_copy(update={"store": "store_late"})) as client:
        assert client.wait(str(ticket), timeout=30).status == "applied"
        assert client.balance(ticket.account_id) == 7
    assert dead("list").stdout == "0 dead letters\n"
    assert "replayed" in dead("list", "--all").stdout


@pytest.mark.usefixtures("running_worker")
def test_bytes_that_are_no_command_stay_where_they_are_safe(dead: Dead, settings: Settings) -> None:
    lane = Keys(settings.redis_prefix).lane(3)
    with redis.Redis.from_url(settings.require_redis_url()) as server:
        server.xadd(lane, {"c": BROKEN_BYTES})
    letter = wait_for_letter(dead)

    shown = dead("show", letter["dead_letter_id"]).stdout
    replay = dead("replay", letter["dead_letter_id"])

    assert letter["payload"] == '{"v":9,"kind":"\\x1b[2J"}\\xff'
    assert letter["payload"] in shown
    assert "\x1b" not in shown
    assert replay.exit_code == 1
    assert "does not say which lane it belongs on" in replay.stdout
    assert replay.stdout.endswith("0 replayed, 1 refused\n")
    assert letters_of(dead) == [letter]


def wait_for_letter(dead: Dead) -> dict[str, Any]:
    assert wait_until(lambda: bool(letters_of(dead)), seconds=30)
    return letters_of(dead)[0]


def letters_of(dead: Dead) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = json.loads(dead("list", "--json").stdout)["dead_letters"]
    return letters


def test_the_very_bytes_go_back_to_the_lane_of_their_account(
    dead: Dead, add_letter: AddLetter, settings: Settings
) -> None:
    identifier = add_letter(FOREIGN_BYTES)

    replay = dead("replay", identifier, "--json")

    assert json.loads(replay.stdout) == {"replayed": [identifier], "refused": {}}
    ((_, fields),) = lane_of(settings, ACCOUNT)
    assert fields[b"c"] == FOREIGN_BYTES
    assert fields[b"k"] == b"1"


def test_one_that_was_replayed_is_not_replayed_again(dead: Dead, add_letter: AddLetter, settings: Settings) -> None:
    identifier = add_letter(FOREIGN_BYTES)
    dead("replay", identifier)

    again = dead("replay", identifier)

    assert again.exit_code == 1
    assert "was replayed at" in again.stdout
    assert len(lane_of(settings, ACCOUNT)) == 1


def test_a_full_lane_refuses_and_the_letter_stays(dead: Dead, add_letter: AddLetter) -> None:
    identifiers = [add_letter(FOREIGN_BYTES), add_letter(FOREIGN_BYTES)]

    replay = dead("replay", "--all", "--json", environment={"CREDITLANE_LANE_LIMIT": "1"})

    assert replay.exit_code == 1
    report = json.loads(replay.stdout)
    assert report["replayed"] == identifiers[:1]
    assert "at its limit" in report["refused"][identifiers[1]]
    assert [letter["dead_letter_id"] for letter in letters_of(dead)] == identifiers[1:]


def test_all_go_back_in_the_order_in_which_they_came(dead: Dead, add_letter: AddLetter, settings: Settings) -> None:
    payloads = [FOREIGN_BYTES.replace(b"foreign", b"key %d" % number) for number in range(5)]
    for payload in payloads:
        add_letter(payload)

    assert dead("replay", "--all").stdout == "5 replayed, 0 refused\n"
    assert [fields[b"c"] for _, fields in lane_of(settings, ACCOUNT)] == payloads


def test_a_list_is_limited_and_printable(dead: Dead, add_letter: AddLetter) -> None:
    first = add_letter(FOREIGN_BYTES)
    add_letter(FOREIGN_BYTES)

    lines = dead("list", "--limit", "1").stdout.splitlines()

    assert len(lines) == 2
    assert lines[1].startswith(first)
    assert "it is \\x1b[31mred" in lines[1]


@pytest.mark.parametrize("identifier", ["nonsense", str(uuid.UUID(int=1))])
def test_an_unknown_letter_is_named(identifier: str, dead: Dead) -> None:
    assert identifier in error_of(dead("show", identifier)).message
    assert isinstance(error_of(dead("replay", identifier)), InvalidCommand)


@pytest.mark.parametrize("arguments", [[], ["--all", str(uuid.UUID(int=1))]])
def test_a_replay_is_of_one_or_of_all(arguments: list[str], dead: Dead) -> None:
    result = dead("replay", *arguments)

    assert result.exit_code == 2
    assert "name one dead letter, or --all" in result.stderr


def test_a_database_without_the_schema_says_so(dead: Dead, empty_database_url: str) -> None:
    result = dead("list", environment={"CREDITLANE_DATABASE_URL": empty_database_url})

    assert isinstance(error_of(result), NotMigrated)


def test_a_redis_that_is_not_there_leaves_the_letter(dead: Dead, add_letter: AddLetter) -> None:
    identifier = add_letter(FOREIGN_BYTES)

    result = dead("replay", identifier, environment={"CREDITLANE_REDIS_URL": "redis://127.0.0.1:1/0"})

    assert "0 were replayed before" in error_of(result).message
    assert letters_of(dead)[0]["dead_letter_id"] == identifier


@pytest.mark.usefixtures("running_worker")
def test_a_command_of_a_store_that_does_not_exist_is_listed_from_anywhere(settings: Settings) -> None:
    """Given a dead letter under no store, when another process asks by the ticket's text, then it learns the reason."""
    of_late_store = settings.model_copy(update={"store": "store_late"})
    with Client(of_late_store) as sender, Client(of_late_store) as other:
        ticket = sender.enqueue(OpenAccount(customer_id="bob", idempotency_key="open bob"))
        sender.wait(ticket, timeout=30)

        result = other.wait(str(ticket), timeout=30)

    assert result.status == "dead_lettered"
    assert result.error is not None
    assert "there is no store 'store_late'" in result.error.message
