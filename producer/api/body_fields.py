"""Counts the fields of a body before the models judge it, which takes them far longer than counting."""

from __future__ import annotations

import json
from typing import Any

#: Most fields, over all of its objects, that a body may have: several times what any operation takes.
MAX_FIELDS = 1_000
#: A body up to this size is not counted: the models are done with it as soon.
UNCOUNTED_BYTES = 16_384


class _TooManyError(Exception):
    """There are more fields than a body may have."""


def has_too_many_fields(body: bytes) -> bool:
    """Tell whether a JSON body has more fields than any operation takes. What is no JSON has none."""
    if len(body) <= UNCOUNTED_BYTES:
        return False
    seen = 0

    def count(pairs: list[tuple[str, Any]]) -> None:
        nonlocal seen
        seen += len(pairs)
        if seen > MAX_FIELDS:
            raise _TooManyError

    try:
        json.loads(body, object_pairs_hook=count)
    except _TooManyError:
        return True
    except (ValueError, RecursionError):
        # The operation says what is wrong with it.
        return False
    return False
