"""The OpenAPI document says what the API does: every operation, status and code, and nothing of the framework's."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from openapi_schema_validator import oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator

from creditlane import Settings
from creditlane.producer.api.app import create_app
from creditlane.producer.api.errors import CODES
from creditlane.schemas.errors import REJECTIONS
from creditlane.schemas.events import EVENT_TYPES, TEST_EVENT

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
    "holdCustomerCredits": ("post", "/v1/customer-credits/accounts/{id}/holds", "201"),
    "listCustomerCreditsHolds": ("get", "/v1/customer-credits/accounts/{id}/holds", "200"),
    "getCustomerCreditsHold": ("get", "/v1/customer-credits/holds/{id}", "200"),
    "captureCustomerCreditsHold": ("post", "/v1/customer-credits/holds/{id}/capture", "201"),
    "voidCustomerCreditsHold": ("post", "/v1/customer-credits/holds/{id}/void", "200"),
    "extendCustomerCreditsHold": ("post", "/v1/customer-credits/holds/{id}/extend", "200"),
    "enqueueCustomerCreditsCommands": ("post", "/v1/customer-credits/commands", "200"),
    "getCustomerCreditsCommand": ("get", "/v1/customer-credits/commands/{id}", "200"),
    "updateCustomerCreditsAccount": ("patch", "/v1/customer-credits/accounts/{id}", "200"),
    "setCustomerCreditsAccountLimit": ("put", "/v1/customer-credits/accounts/{id}/limits/{limit}", "200"),
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
    name
    for name, (method, path, _) in OPERATIONS.items()
    if method in {"post", "put", "patch"} and path.count("/customer-credits/")
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
    assert set(REJECTIONS) - {"account_not_found", "transaction_not_found", "hold_not_found"} <= set(CODES)


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
    events = {
        (name, field) for name, field in numbers if name.endswith("Event") and field in {"created_at", "sequence"}
    } | {(name, field) for name, field in numbers if name.endswith("Object") and field == "sequence"}
    assert numbers == {("ErrorBody", "status"), ("ErrorBody", "timestamp")} | pages | deliveries | events


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


def test_it_is_a_document_of_openapi_3_1(document: dict[str, Any]) -> None:
    # As it is served: what JSON has no word for would be found here.
    served = json.loads(json.dumps(document))

    assert [error.message for error in OpenAPIV31SpecValidator(served).iter_errors()] == []


def validator_of(document: dict[str, Any], schema: Any) -> Draft202012Validator:
    """Return what judges values by a schema of the document, formats included."""
    return Draft202012Validator(
        {"components": document["components"], "allOf": [schema]}, format_checker=oas31_format_checker
    )


def parts_of(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every object of the document and where it is; what examples and defaults are made of is none of it."""
    if isinstance(part, dict):
        yield path, part
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, below in items:
        if name not in {"example", "examples", "default"}:
            yield from parts_of(below, f"{path}/{name}")


def shown_values(document: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Give every example and every default of the document: where it is, its schema, and it."""
    for path, part in parts_of(document):
        if isinstance(schema := part.get("schema"), dict):
            # A media type, a parameter or a header: its examples have names, and values beside them.
            if "example" in part:
                yield f"{path}/example", schema, part["example"]
            for name, example in part.get("examples", {}).items():
                yield f"{path}/examples/{name}", schema, example["value"]
        elif isinstance(part.get("examples"), list):
            yield from ((f"{path}/examples/{number}", part, value) for number, value in enumerate(part["examples"]))
        if "default" in part and part.keys() & {"type", "anyOf", "$ref", "const"}:
            yield f"{path}/default", part, part["default"]


def test_every_example_and_every_default_keeps_to_its_schema(document: dict[str, Any]) -> None:
    shown = list(shown_values(document))
    wrong = []
    for path, schema, value in shown:
        try:
            validator_of(document, schema).validate(value)
        except ValidationError as error:
            wrong.append(f"{path}: {error.message}")

    assert wrong == []
    assert len([path for path, _, _ in shown if "/responses/" in path]) > 200
    assert len([path for path, _, _ in shown if path.endswith("/default")]) > 5


def test_no_moment_has_a_default(document: dict[str, Any]) -> None:
    """A client in Go or Java does not compile with one that is no moment, and with one that is it makes up times."""
    found = [part for _, part in parts_of(document) if part.get("format") == "date-time"]
    assert len(found) > 10
    assert [moment for moment in found if "default" in moment] == []
    assert all(datetime.fromisoformat(example) for moment in found for example in moment.get("examples", []))


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ("BalanceBody", "updated_at"),
        ("BalanceBody", "as_of"),
        ("AccountBody", "low_balance"),
        ("AccountBody", "max_balance"),
        ("WebhookBody", "secret"),
        ("RequestErrorDetail", "command_id"),
    ],
)
def test_what_is_left_out_is_never_null(document: dict[str, Any], schema: str, field: str) -> None:
    body = document["components"]["schemas"][schema]

    assert field not in body["required"]
    assert body["properties"][field]["type"] == "string"
    assert body["properties"][field]["description"]


def test_no_parameter_is_null(document: dict[str, Any]) -> None:
    """There is none in a URL or a header: who leaves it out sends nothing."""
    parameters = [each for _, _, operation in operations(document).values() for each in operation.get("parameters", [])]

    assert len([each for each in parameters if not each["required"]]) > 10
    assert [each["name"] for each in parameters if "null" in json.dumps(each["schema"])] == []


def test_it_says_what_is_sent_to_webhooks_and_callbacks(document: dict[str, Any]) -> None:
    sent = document["webhooks"]
    operations_of = {name: item["post"] for name, item in sent.items()}
    names = [operation["operationId"] for operation in operations_of.values()]

    assert set(sent) == {*EVENT_TYPES, TEST_EVENT, "callback"}
    assert len(set(names) | set(operations(document))) == len(names) + len(operations(document))
    for name, operation in operations_of.items():
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        event_type = document["components"]["schemas"][schema]["properties"]["eventType"]
        named = event_type.get("enum", [event_type.get("const")])
        assert name in named or (name == "callback" and set(named) >= {"command.applied", "command.dead_lettered"})
        assert set(operation["responses"]) == {"200", "410"}
        # It is nothing that can be asked of the API, and tools that make clients must not take it for that.
        assert (operation["security"], operation["x-internal"]) == ([], True)


def test_every_tag_is_explained_and_the_server_is_named(document: dict[str, Any]) -> None:
    used = {tag for _, _, operation in operations(document).values() for tag in operation["tags"]}
    used |= {tag for item in document["webhooks"].values() for tag in item["post"]["tags"]}

    assert {tag["name"] for tag in document["tags"] if tag["description"]} == used
    assert [server["url"] for server in document["servers"]] == ["/"]
    assert document["info"]["license"]["identifier"] == "Apache-2.0"


def test_every_whole_number_among_the_parameters_shows_its_bounds(document: dict[str, Any]) -> None:
    shown = {
        (path, parameter["name"]): {"minimum", "maximum"} - set(parameter["schema"])
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        if parameter["schema"].get("type") == "integer"
    }

    assert len(shown) > 5
    assert [path for path, missing in shown.items() if missing] == []
