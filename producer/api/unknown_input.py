"""What a request brings and its operation does not take is refused by name: a filter that is ignored lies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant

from .errors import Problem, problem_of_fields
from .idempotency_header import KEY_FIELD, KEY_HEADER

#: What a request without a body may say all the same: nothing.
_NOTHING: tuple[Any, ...] = ({}, None)


async def only_known_parameters(request: Request) -> None:
    """Let a request pass whose query parameters the operation knows, each once: a dependency of every operation.

    Raises:
        Problem: there are others.
    """
    if not request.scope["query_string"]:
        return
    known = list(dict.fromkeys(_query_parameters(request.scope["route"].dependant)))
    there_are = f"there are {', '.join(known)}" if known else "there are none"
    given = Counter(name for name, _ in request.query_params.multi_items())
    unknown = [_item("query", name, f"is no query parameter here; {there_are}") for name in given if name not in known]
    doubled = [_item("query", name, "may be given once") for name in given if name in known and given[name] > 1]
    if unknown or doubled:
        raise problem_of_fields([*unknown, *doubled])


async def only_known_bodies(request: Request) -> None:
    """Let a request pass whose body is JSON, or whose operation takes none and which has none.

    What stands in a body that is taken is for the operation's model to judge. A dependency of every operation but the
    batch, which reads its body as it comes.

    Raises:
        Problem: there is a body and none is taken, or it is not said to be JSON.
    """
    # What a body of these means is not defined, and some clients send one.
    if request.method == "GET" or not (body := await request.body()):
        return
    if request.scope["route"].body_field is None:
        _refuse_content(body)
    elif not _is_json(request.headers.get("content-type", "")):
        message = "content-type: the body is not said to be JSON; send the header Content-Type: application/json"
        raise Problem("validation_error", message, param="content-type")


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)


def _refuse_content(body: bytes) -> None:
    if not body.strip():
        return
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = body
    if content in _NOTHING:
        return
    if not isinstance(content, dict):
        raise Problem("validation_error", "body: this operation takes none; send the request without one")
    raise problem_of_fields([_item("body", name, _unknown_field(name)) for name in content])


def _unknown_field(name: str) -> str:
    if name == KEY_FIELD:
        return f"this operation takes no body; send the key as the header {KEY_HEADER}"
    return "this operation takes no body; send the request without one"


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _item(part: str, name: str, message: str) -> dict[str, Any]:
    return {"loc": (part, name), "type": "unknown_input", "msg": message}
