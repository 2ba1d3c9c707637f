"""The OpenAPI document as a whole: what the framework makes of the operations, and the section `webhooks`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ..models.ledger import without_null
from .events import events_sent
from .responses import example

#: What the operations are sorted by.
TAGS = [
    {"name": "Accounts", "description": "Open, show and change accounts, and move credits on one of them."},
    {"name": "Transactions", "description": "Move credits between accounts, find what moved, and undo it."},
    {"name": "Holds", "description": "Set a part of a balance aside, and take it or give it back later."},
    {"name": "Commands", "description": "Send many commands at once, and ask what became of one."},
    {"name": "Webhooks", "description": "Say where events are sent to, and see what was sent."},
    {"name": "Events", "description": "What is sent to the URLs of webhooks, and to those that came with commands."},
]
#: Whatever host and port the server has, the document's own.
SERVERS = [{"url": "/", "description": "The server that this document comes from."}]
CONTACT = {"name": "Whoever runs this server"}
LICENSE = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}

#: The schema of the error body that the framework would send.
_FRAMEWORK_ERROR = "HTTPValidationError"


def describe(app: FastAPI) -> None:
    """Let the app's document say all that is so and nothing else, so that clients can be made from it."""
    app.webhooks = events_sent()
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        for section in ("paths", "webhooks"):
            for path in document[section].values():
                for operation in path.values():
                    _correct(operation["responses"])
                    for parameter in operation.get("parameters", ()):
                        # It is there or not: neither a URL nor a header has a null.
                        parameter["schema"] = without_null(parameter["schema"])
        for name in (_FRAMEWORK_ERROR, "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual extends the document


def _correct(responses: dict[str, Any]) -> None:
    """What breaks a rule is 400 here, not the framework's 422; and an example has what is null in it."""
    if _FRAMEWORK_ERROR in str(responses.get("422")):
        del responses["422"]
    for response in responses.values():
        # The framework leaves out every null of the document.
        examples = response.get("content", {}).get("application/json", {}).get("examples", {})
        examples.update({code: {"value": example(code)} for code in examples})
