"""Judges the fields of a JSON body before the models do: how many there are, and that each stands once.

The models would take longer to name thousands of unknown fields than it takes to count them, and of a field that
stands twice they would take the last and say nothing.
"""

from __future__ import annotations

import json
from typing import Any

from ....schemas.errors import InvalidCommand

#: Most fields, over all of its objects, that a body may have: several times what any operation takes.
MAX_FIELDS = 1_000
#: Characters of the name of a field that are repeated; clients choose it.
MAX_NAME_CHARACTERS = 200

_NOT_UTF_8 = "The body is not UTF-8; send JSON in UTF-8."
_ENCODINGS = frozenset({"utf-8", "utf-8-sig"})


class _Fields:
    """Takes the objects of a body as they are read."""

    def __init__(self) -> None:
        self._seen = 0

    def take(self, pairs: list[tuple[str, Any]]) -> None:
        self._seen += len(pairs)
        if self._seen > MAX_FIELDS:
            raise InvalidCommand(f"The body has more than {MAX_FIELDS} fields.")
        if len({name for name, _ in pairs}) != len(pairs):
            raise _doubled([name for name, _ in pairs])


def check_fields(body: bytes) -> None:
    """Let a JSON body pass which has few enough fields, and none twice in one object. What is no JSON passes, too.

    Raises:
        InvalidCommand: it is none of these; it names the field.
    """
    if json.detect_encoding(body) not in _ENCODINGS:
        raise InvalidCommand(_NOT_UTF_8)
    try:
        json.loads(body, object_pairs_hook=_Fields().take)
    except InvalidCommand:
        # Which is a ValueError, too.
        raise
    except json.JSONDecodeError:
        # The operation says what is wrong with it.
        return
    except UnicodeDecodeError:
        raise InvalidCommand(_NOT_UTF_8) from None
    except RecursionError:
        raise InvalidCommand("The body is nested more deeply than what any operation takes.") from None
    except ValueError:
        raise InvalidCommand("A number of the body has too many digits; send amounts as strings of digits.") from None


def _doubled(names: list[str]) -> InvalidCommand:
    name = next(name for number, name in enumerate(names) if name in names[:number])[:MAX_NAME_CHARACTERS]
    return InvalidCommand(f"{name}: stands more than once in an object; send it once", field=name)
