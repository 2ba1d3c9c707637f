"""The server does what its OpenAPI document says, and the document says what the server does: schemathesis finds out.

It reads the document from a running API, makes requests that keep to it and requests that break it, chains them by the
ids in the answers, and holds every answer to the document.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from creditlane import Settings
from creditlane.audit.whole import verify

LONG = os.environ.get("CREDITLANE_TEST_LONG") == "1"
#: Requests for each operation in each phase, at most.
EXAMPLES = 300 if LONG else 10
#: Requests for each operation on average, at least; where there is little to vary, it makes no more than there are.
LEAST_EXAMPLES = 10
SEED = 1
CONFIGURATION = Path(__file__).parents[2] / "schemathesis.toml"
MAIN = "from schemathesis.cli import schemathesis; schemathesis()"
#: The section of a configuration by which an operation is asked with this id in its path.
PIN = '[[operations]]\ninclude-operation-id = "{operation}"\nparameters = {{ "path.id" = "{id}" }}\n'
ACCOUNTS = "/v1/customer-credits/accounts"
TRANSACTIONS = "/v1/customer-credits/transactions"

pytestmark = pytest.mark.timeout(1_200 if LONG else 120)


class Api(NamedTuple):
    """A served API and a directory for what schemathesis writes."""

    url: str
    key: str
    directory: Path

    def examine(self, configuration: str, *choice: str) -> str:
        """Return what schemathesis reports, after all of its checks in all of its phases, on the chosen operations."""
        path = self.directory / "schemathesis.toml"
        path.write_text(configuration)
        command = [sys.executable, "-c", MAIN, "--config-file", str(path), "run", f"{self.url}/openapi.json"]
        options = ["--checks", "all", "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color"]
        done = subprocess.run(
            [*command, *options, *choice, "--header", f"x-api-key: {self.key}"],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # It tries every operation without a key and with wrong ones, as fast as it can.
    return settings.model_copy(
        update={"api_keyless_requests_per_second": 1_000_000.0, "api_wrong_keys_per_minute": 1_000_000}
    )


@pytest.fixture
def api(serve_api: Any, tmp_path: Path) -> Api:
    return Api(*serve_api(), tmp_path)


def test_schemathesis_finds_no_disagreement(api: Api, settings: Settings) -> None:
    """Given a real worker and store, when every operation is asked in every way, then no check fails."""
    report = api.examine(CONFIGURATION.read_text())

    assert_all_passed(report, operations=40)
    assert verify(settings.require_database_url()).failed == []


def test_schemathesis_finds_none_among_accounts_and_transactions_that_exist(api: Api, settings: Settings) -> None:
    """Given ids of what exists in every path, then no check fails either: most made-up ids end in 404 before that."""
    with httpx2.Client(base_url=api.url, headers={"x-api-key": api.key}) as http:
        changed, moving, touched = (create(http, f"cust_{number}", "1000") for number in range(3))
        posted = post(http, moving, touched, "posted")
        undone = post(http, moving, touched, "undone")

    pins = {
        **dict.fromkeys([f"{verb}CustomerCreditsAccount" for verb in ("get", "credit", "debit", "update")], moving),
        **dict.fromkeys(["getCustomerCreditsAccountBalance", "listCustomerCreditsAccountEntries"], moving),
        **dict.fromkeys([f"{verb}CustomerCreditsAccount" for verb in ("freeze", "unfreeze", "close")], changed),
        "setCustomerCreditsAccountLimit": touched,
        "reverseCustomerCreditsAccountTransaction": touched,
        "getCustomerCreditsTransaction": posted,
        "reverseCustomerCreditsTransaction": undone,
    }
    sections = [PIN.format(operation=operation, id=identifier) for operation, identifier in pins.items()]
    choice = [f"--include-operation-id={operation}" for operation in pins]
    report = api.examine("\n".join([CONFIGURATION.read_text(), *sections]), *choice)

    assert_all_passed(report, operations=len(pins))
    assert verify(settings.require_database_url()).failed == []


def test_schemathesis_finds_none_among_holds_that_exist(api: Api, settings: Settings) -> None:
    """Given holds that are there in every path, open ones and one that is used up, then no check fails either."""
    with httpx2.Client(base_url=api.url, headers={"x-api-key": api.key}) as http:
        account = create(http, "cust_1", "1000")
        captured, voided, extended = (place_hold(http, account, f"hold {number}") for number in range(3))

    pins = {
        **dict.fromkeys(["holdCustomerCredits", "listCustomerCreditsHolds"], account),
        "captureCustomerCreditsHold": captured,
        "voidCustomerCreditsHold": voided,
        **dict.fromkeys(["extendCustomerCreditsHold", "getCustomerCreditsHold"], extended),
    }
    sections = [PIN.format(operation=operation, id=identifier) for operation, identifier in pins.items()]
    choice = [f"--include-operation-id={operation}" for operation in pins]
    report = api.examine("\n".join([CONFIGURATION.read_text(), *sections]), *choice)

    assert_all_passed(report, operations=len(pins))
    assert verify(settings.require_database_url()).failed == []


def test_schemathesis_finds_none_among_webhooks_that_exist(api: Api) -> None:
    """Given endpoints and events that exist in every path, then no check fails."""
    with httpx2.Client(base_url=api.url, headers={"x-api-key": api.key}) as http:
        kept, changed, deleted = (
            http.post("/v1/webhooks", json={"url": f"https://example.com/{number}"}).json()["id"] for number in range(3)
        )
        event = http.post(f"/v1/webhooks/{kept}/test").json()["event_id"]

    pins = {
        **dict.fromkeys(["getWebhook", "rotateWebhookSecret", "testWebhook", "listWebhookDeliveries"], kept),
        **dict.fromkeys(["resendFailedWebhookDeliveries", "getWebhookDelivery", "resendWebhookDelivery"], kept),
        "updateWebhook": changed,
        "deleteWebhook": deleted,
    }
    sections = [PIN.format(operation=operation, id=identifier) for operation, identifier in pins.items()]
    of_event = [
        section.replace(" }", f', "path.event_id" = "{event}" }}') if "Delivery" in section else section
        for section in sections
    ]
    choice = [f"--include-operation-id={operation}" for operation in pins]
    report = api.examine("\n".join([CONFIGURATION.read_text(), *of_event]), *choice)

    assert_all_passed(report, operations=len(pins))


def assert_all_passed(report: str, operations: int) -> None:
    """Hold that every operation was tested, and none of the tests left anything to be reported."""
    assert f"Tested: {operations}\n" in report, report
    found = re.search(r"(\d+) generated, (\d+) passed", report)
    assert found is not None, report
    assert int(found[1]) == int(found[2]) > operations * LEAST_EXAMPLES


def create(http: httpx2.Client, customer: str, balance: str) -> str:
    answer = http.post(ACCOUNTS, json={"customer_id": customer, "initial_balance": balance})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def place_hold(http: httpx2.Client, account: str, key: str) -> str:
    body = {"amount": "10", "reference": key, "idempotency_key": key}
    answer = http.post(f"{ACCOUNTS}/{account}/holds", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def post(http: httpx2.Client, source: str, target: str, key: str) -> str:
    """Return the id of a transaction of two entries."""
    entries = [
        {"account_id": source, "side": "debit", "amount": "1"},
        {"account_id": target, "side": "credit", "amount": "1"},
    ]
    answer = http.post(TRANSACTIONS, json={"reference": key, "idempotency_key": key, "entries": entries})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
