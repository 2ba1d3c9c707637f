"""What the OpenAPI document says of the batch endpoint, whose bodies it cannot describe line by line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ....lanes.encoding import MAX_COMMAND_BYTES
from ..batch_lines import LINES
from ..models.ledger import ACCOUNT_EXAMPLE, COMMAND_EXAMPLE
from .responses import Responses, errors, headers


def _schema_of(line: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a sort of line. What it refers to is there already, for the operations of that name."""
    schema = line.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


_EXAMPLE_LINES = (
    f'{{"kind":"debit","account_id":"{ACCOUNT_EXAMPLE}","amount":"3","reference":"req_1","idempotency_key":"req_1"}}\n'
    f'{{"kind":"debit","account_id":"{ACCOUNT_EXAMPLE}","amount":"0","reference":"req_2","idempotency_key":"req_2"}}\n'
)
_EXAMPLE_ANSWERS = (
    f'{{"line":1,"object":"command","id":"{COMMAND_EXAMPLE}","status":"queued"}}\n'
    '{"line":2,"object":"command","status":"refused","error":{"type":"invalid_request_error",'
    '"code":"validation_error","message":"amount: …","param":"amount"}}\n'
)

_LINE_SCHEMAS = [_schema_of(line) for line in LINES]
_BODY = {
    "schema": {
        "type": "string",
        "minLength": 1,
        "description": "Newline-delimited JSON: one command a line, each as one of `x-lines` says. The content "
        "type may as well be `application/x-ndjson`.",
        "x-lines": {"oneOf": _LINE_SCHEMAS},
    },
    "example": _EXAMPLE_LINES,
}

#: The same for tools that make clients and know no text.
_BYTES = {
    "schema": {
        "type": "string",
        "format": "binary",
        "minLength": 1,
        "description": "The same lines, as bytes in UTF-8.",
    }
}

#: The request: whatever its content type, it is read as lines. Of text every tool knows how to make some.
BATCH_REQUEST: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"text/plain": _BODY, "application/octet-stream": _BYTES}}
}

BATCH_RESPONSES: Responses = {
    200: {
        "description": "A line for each line of the request, in order: `queued` with the id to ask for the result, "
        "`refused` with the error, or `unknown` if it may have been accepted. One request may have "
        "`CREDITLANE_API_BATCH_LINES` lines of "
        f"{MAX_COMMAND_BYTES} bytes.",
        "headers": headers("x-request-id"),
        "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": _EXAMPLE_ANSWERS}},
    },
    **errors("timeout", "lane_full", "unsupported_encoding"),
}
