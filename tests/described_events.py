"""Holds events that were sent to what the OpenAPI document says of them: no field is wrong, and none is unsaid."""

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from openapi_schema_validator import oas31_format_checker

from creditlane import Settings
from creditlane.producer.api.app import create_app


def assert_described(events: Iterable[dict[str, Any]]) -> None:
    """Hold that each event is as the section `webhooks` has it."""
    for event in events:
        wrong = [f"{error.json_path}: {error.message}" for error in _validator_of(_name_of(event)).iter_errors(event)]
        assert wrong == [], event


def _name_of(event: dict[str, Any]) -> str:
    # A rejected command is sent to endpoints in another form than to the URL that came with it.
    is_result = event["object"]["object"] == "command" and "status" in event["object"]
    return "callback" if is_result else str(event["eventType"])


@cache
def _document() -> dict[str, Any]:
    document = deepcopy(create_app(Settings()).openapi())
    for schema in document["components"]["schemas"].values():
        # Clients must take what they do not know; what the document does not know is a gap in it.
        schema.setdefault("additionalProperties", False)
    return document


@cache
def _validator_of(name: str) -> Draft202012Validator:
    document = _document()
    content = document["webhooks"][name]["post"]["requestBody"]["content"]
    schema = {"components": document["components"], "allOf": [content["application/json"]["schema"]]}
    return Draft202012Validator(schema, format_checker=oas31_format_checker)
