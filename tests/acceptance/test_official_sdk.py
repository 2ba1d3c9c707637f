"""The official TypeScript client of Creem's Customer Credits works with only its server's address changed.

Needs Node and npm, which fetches the client; nothing else from outside.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from creditlane import Settings
from creditlane.producer.operations.api_keys import create_key

from ..ports import free_port

SCRIPT = Path(__file__).with_name("official_sdk.mjs")
#: How long a process may take to start and to stop, in seconds.
DEADLINE_SECONDS = 60.0
HUGE = "9" * 200

pytestmark = [
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None,
        reason="Node and npm are not installed, and the official client is a Node package",
    ),
    pytest.mark.timeout(300),
]


@pytest.fixture
def server_url(settings: Settings) -> Iterator[str]:
    """The address of an API process, with a worker beside it."""
    values = settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS}).model_dump(exclude_none=True)
    environment = {**os.environ, **{f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}}
    port = free_port()
    program = "from creditlane.cli.main import main; main()"
    commands = [
        [sys.executable, "-m", "creditlane.worker"],
        [sys.executable, "-c", program, "api", "--port", str(port)],
    ]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(DEADLINE_SECONDS)


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - an address of our own
                return
        except OSError:
            assert time.monotonic() < deadline, "the API is not ready"


@pytest.fixture
def seen(sdk_directory: Path, server_url: str, database_url: str) -> dict[str, Any]:
    """What every operation answered the official client."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        key = create_key(connection, "store_default", "official client")
    environment = {**os.environ, "SDK_DIRECTORY": str(sdk_directory), "SERVER_URL": server_url, "API_KEY": key}
    done = subprocess.run(
        ["node", str(SCRIPT)],  # noqa: S607 - whichever node is installed
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def test_the_official_client_gets_what_it_expects_of_all_fifteen_operations(seen: dict[str, Any]) -> None:
    wallet, spare = seen["created"]["wallet"], seen["created"]["spare"]
    assert (wallet["name"], wallet["unitLabel"], wallet["status"]) == ("Wallet", "tokens", "active")
    assert (spare["name"], spare["unitLabel"]) == ("default", "credits")
    assert seen["read"] == wallet
    assert seen["listed"] == seen["names"][::-1]

    credit, debit = seen["credit"], seen["debit"]
    assert (credit["entries"][0]["side"], credit["entries"][0]["amount"]) == ("credit", HUGE)
    assert seen["creditAgain"] == credit["id"]
    assert (debit["entries"][0]["side"], debit["reversalOf"]) == ("debit", None)

    assert seen["balance"]["balance"] == str(300 + int(HUGE) - 100)
    assert set(seen["balance"]) == {"balance", "updatedAt"}
    assert seen["balanceAt"] == {"balance": "300", "asOf": wallet["createdAt"]}
    assert seen["balanceBefore"]["balance"] == "0"

    posted = seen["posted"]
    assert [entry["amount"] for entry in posted["entries"]] == ["7", "4", "3"]
    assert seen["postedAgain"] == posted["id"]
    assert seen["transaction"] == posted
    assert seen["byReference"] == {"object": "list", "data": [posted], "hasMore": False}

    assert (seen["undone"]["reversalOf"], seen["undoneAgain"]) == (debit["id"], seen["undone"]["id"])
    assert seen["undoneWhole"]["reversalOf"] == posted["id"]
    assert [entry["side"] for entry in seen["undoneWhole"]["entries"]] == ["credit", "debit", "debit"]

    moves = [["credit", "300"], ["credit", HUGE], ["debit", "100"], ["debit", "7"], ["credit", "100"], ["credit", "7"]]
    assert seen["entries"] == moves[::-1]
    assert seen["states"] == ["frozen", "active", "closed"]


def test_the_official_client_understands_every_refusal(seen: dict[str, Any]) -> None:
    refusals = {name: (answered["status"], answered["code"]) for name, answered in seen.items() if "code" in answered}

    assert refusals == {
        "sameName": (409, "account_name_taken"),
        "otherBody": (409, "idempotency_key_mismatch"),
        "tooMuch": (422, "insufficient_balance"),
        "badAmount": (400, "validation_error"),
        "unbalanced": (422, "unbalanced_transaction"),
        "undoReversal": (409, "reversal_not_reversible"),
        "notItsOwn": (404, "not_found"),
        "notFrozen": (409, "account_not_frozen"),
        "closed": (409, "account_closed"),
        "unknown": (404, "not_found"),
        "unknownTransaction": (404, "not_found"),
    }
    assert seen["sameName"]["typed"]
    assert seen["badAmount"]["param"] == "amount"
