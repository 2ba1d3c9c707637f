"""The OpenAPI document says what the API does: every operation, status and code, and nothing of the framework's."""

from typing import Any

import pytest

from creditlane import Settings
from creditlane.producer.api.app import create_app
from creditlane.producer.api.errors import CODES
from creditlane.schemas.errors import REJECTIONS

#: As the official client's source names them.
OPERATIONS = {
    "createCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts", "201"),
    "listCustomerCreditsAccounts": ("get", "/v1/customer-credits/accounts", "200"),
    "getCustomerCreditsAccount": ("get", "/v1/customer-credits/accounts/{id}", "200"),
    "getCustomerCreditsAccountBalance": ("get", "/v1/customer-credits/accounts/{id}/balance", "200"),
    "listCustomerCreditsAccountEntries": ("get", "/v1/customer-credits/accounts/{id}/entries", "200"),
    "freezeCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts/{id}/freeze", "200"),
    "unfreezeCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts/{id}/unfreeze", "200"),
    "creditCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts/{id}/credit", "201"),
    "debitCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts/{id}/debit", "201"),
    "reverseCustomerCreditsAccountTransaction": ("post", "/v1/customer-credits/accounts/{id}/reverse", "201"),
    "closeCustomerCreditsAccount": ("post", "/v1/customer-credits/accounts/{id}/close", "200"),
    "postCustomerCreditsTransaction": ("post", "/v1/customer-credits/transactions", "201"),
    "listCustomerCreditsTransactionsByReference": ("get", "/v1/customer-credits/transactions", "200"),
    "getCustomerCreditsTransaction": ("get", "/v1/customer-credits/transactions/{id}", "200"),
    "reverseCustomerCreditsTransaction": ("post", "/v1/customer-credits/transactions/{id}/reverse", "201"),
    "enqueueCustomerCreditsCommands": ("post", "/v1/customer-credits/commands", "200"),
    "getCustomerCreditsCommand": ("get", "/v1/customer-credits/commands/{id}", "200"),
    "updateCustomerCreditsAccount": ("patch", "/v1/customer-credits/accounts/{id}", "200"),
    "createWebhook": ("post", "/v1/webhooks", "200"),
    "listWebhooks": ("get", "/v1/webhooks", "200"),
    "getWebhook": ("get", "/v1/webhooks/{id}", "200"),
    "updateWebhook": ("patch", "/v1/webhooks/{id}", "200"),
    "deleteWebhook": ("delete", "/v1/webhooks/{id}", "200"),
    "rotateWebhookSecret": ("post", "/v1/webhooks/{id}/rotate-secret", "200"),
    "testWebhook": ("post", "/v1/webhooks/{id}/test", "200"),
    "listWebhookDeliveries": ("get", "/v1/webhooks/{id}/deliveries", "200"),
    "getWebhookDelivery": ("get", "/v1/webhooks/{id}/deliveries/{event_id}", "200"),
    "resendWebhookDelivery": ("post", "/v1/webhooks/{id}/deliveries/{event_id}/resend", "200"),
    "resendFailedWebhookDeliveries": ("post", "/v1/webhooks/{id}/resend", "200"),
    "listCallbackDeliveries": ("get", "/v1/webhooks/callbacks/deliveries", "200"),
    "getCallbackDelivery": ("get", "/v1/webhooks/callbacks/deliveries/{event_id}", "200"),
    "resendCallbackDelivery": ("post", "/v1/webhooks/callbacks/deliveries/{event_id}/resend", "200"),
    "rotateCallbackSecret": ("post", "/v1/webhooks/callbacks/rotate-secret", "200"),
}
#: Those that put a command on a lane.
WRITES = [
    name for name, (method, path, _) in OPERATIONS.items() if method == "post" and path.count("/customer-credits/")
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_operations_are_named_as_official_clients_know_them(document: dict[str, Any]) -> None:
    found = {name: (method, path) for name, (method, path, _) in operations(document).items()}

    assert found == {name: (method, path) for name, (method, path, _) in OPERATIONS.items()}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_may_come_of_it(document: dict[str, Any], name: str) -> None:
    operation = operations(document)[name][2]
    responses = operation["responses"]

    assert OPERATIONS[name][2] in responses
    assert {"400", "401", "429", "500", "503"} <= set(responses)
    assert operation["security"] == [{"api_key": []}]
    assert operation["summary"]
    assert operation["description"]
    for status, response in responses.items():
        assert "x-request-id" in response["headers"]
        if int(status) >= 400:
            examples = response["content"]["application/json"]["examples"]
            assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
            for code, example in examples.items():
                assert (example["value"]["error"]["code"], CODES[code][0]) == (code, int(status))
    assert all("Retry-After" in responses[status]["headers"] for status in ("429", "503"))


@pytest.mark.parametrize("name", [name for name in WRITES if name != "enqueueCustomerCreditsCommands"])
def test_a_write_may_be_queued_or_replayed(document: dict[str, Any], name: str) -> None:
    responses = operations(document)[name][2]["responses"]

    assert "Location" in responses["202"]["headers"]
    assert "X-Idempotent-Replay" in responses[OPERATIONS[name][2]]["headers"]
    assert "lane_full" in responses["429"]["content"]["application/json"]["examples"]


def test_every_code_is_documented_somewhere_and_every_rejection_has_one(document: dict[str, Any]) -> None:
    documented = {
        code
        for _, _, operation in operations(document).values()
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/json", {}).get("examples", {})
    }

    assert documented == set(CODES) - {"method_not_allowed"}
    assert set(REJECTIONS) - {"account_not_found", "transaction_not_found"} <= set(CODES)


def test_nothing_of_the_framework_shows(document: dict[str, Any]) -> None:
    assert "ValidationError" not in str(document)


def test_no_amount_is_a_number(document: dict[str, Any]) -> None:
    numbers = {
        (name, field)
        for name, schema in document["components"]["schemas"].items()
        for field, rule in schema.get("properties", {}).items()
        if rule.get("type") in {"number", "integer"}
    }

    pages = {("Pagination", name) for name in ("total_records", "total_pages", "current_page")}
    deliveries = {("DeliveryBody", "attempts"), ("DeliveryDetail", "attempts"), ("Resent", "count")}
    assert numbers == {("ErrorBody", "status"), ("ErrorBody", "timestamp")} | pages | deliveries


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_a_slow_result_is_described_as_it_is_answered(document: dict[str, Any]) -> None:
    (slow,) = [line for line in document["info"]["description"].split("\n* ") if line.startswith("**Slow results.**")]
    command_id = operations(document)["getCustomerCreditsCommand"][2]["parameters"][0]

    assert "503 `timeout`" in slow
    assert "202" not in slow.partition("With `Prefer: respond-async`")[0]
    assert "error.command_id" in command_id["description"]


def test_every_operation_that_changes_something_may_end_without_a_known_outcome(document: dict[str, Any]) -> None:
    for name, (method, _, operation) in operations(document).items():
        answers = operation["responses"].get("503", {}).get("content", {}).get("application/json", {})
        if method != "get":
            assert "timeout" in answers["examples"], name
