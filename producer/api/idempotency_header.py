"""The header `Idempotency-Key`: many spellings are sent for one key, and one key is one key.

A key in it is printable ASCII, bare or as a quoted string of RFC 8941, as the IETF's draft of the header has it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header, Request
from pydantic import TypeAdapter, ValidationError, WithJsonSchema

from ...schemas.commands import MAX_TEXT_CHARACTERS, REVERSAL_KEY_PREFIX, Key
from .errors import Problem, problem_of_fields

KEY_HEADER = "Idempotency-Key"
#: What an error of the key calls it, whichever way it came.
KEY_FIELD = "idempotency_key"

_RAW_NAME = KEY_HEADER.lower().encode()
#: What may stand around the value of any header.
_WHITE_SPACE = b" \t"
_PRINTABLE = re.compile(r"[ -~]*")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPED = re.compile(r'\\(["\\])')

_checked = TypeAdapter(Key).validate_python

#: The value, as its spellings are read here, bare and quoted; white space around it may not be shown to a schema.
_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": rf'^(?:[!#-~](?:[ -~]{{0,{MAX_TEXT_CHARACTERS - 2}}}[!-~])?|"(?:[ !#-\[\]-~]|\\["\\])'
    rf'{{1,{MAX_TEXT_CHARACTERS}}}")$',
    "not": {"pattern": f'^"?{REVERSAL_KEY_PREFIX}'},
}
#: What the document says of it, where the body does not have the key: a document that showed both could not say that
#: one of them must be there. Its value is not used, which is that of one of perhaps two headers.
KeyHeader = Annotated[
    Annotated[str, WithJsonSchema(_SCHEMA)] | None,
    Header(
        alias=KEY_HEADER,
        description="Makes the request safe to repeat: for ever, the same key and the same request have one effect and "
        "one answer. Printable ASCII, bare or as a quoted string, which is the same key. Must not start with "
        "`reversal:`.",
        examples=["freeze_42"],
    ),
]


def key_of_header(request: Request) -> str | None:
    """Return the key that the header says, or None where there is no such header.

    Raises:
        Problem: there are several, or it is no key.
    """
    values = [value for name, value in request.scope["headers"] if name == _RAW_NAME]
    if not values:
        return None
    if len(values) > 1:
        raise _refused("is there more than once; send one")
    return _key_of(values[0].strip(_WHITE_SPACE).decode("latin-1"))


def _key_of(value: str) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise _refused("must be printable ASCII; send any other key in the body")
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise _refused('begins with " and is no quoted string of RFC 8941')
        value = _ESCAPED.sub(r"\1", quoted[1])
    try:
        return _checked(value)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        raise problem_of_fields([{**item, "loc": ("header", KEY_FIELD)} for item in items]) from None


def refuse_key_header(request: Request) -> None:
    """Let a request of many commands pass: one key for all of them would be nobody's.

    Raises:
        Problem: the header is there.
    """
    if _RAW_NAME in dict(request.scope["headers"]):
        raise _refused("is of one command; give each line its own idempotency_key")


def _refused(message: str) -> Problem:
    return Problem("validation_error", f"{KEY_FIELD}: the header {KEY_HEADER} {message}", param=KEY_FIELD)
