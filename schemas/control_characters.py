"""Control characters in text that a person reads: shown as escapes, so that no text moves a terminal's cursor.

Who sends a request, opens an account or answers a webhook chooses texts that end on an operator's terminal.
"""

from __future__ import annotations

import re

#: What a line of a log may have beside: its end, a tab, and the colours of the console's renderer, which hide nothing.
_ALLOWED = re.compile(r"(\n|\t|\x1b\[[0-9;]*m)")


def visible(text: str) -> str:
    """Return the text with an escape instead of everything that is not printable, ends of lines among it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def visible_lines(text: str) -> str:
    """Return the text of lines that are finished: as `visible`, but for ends of lines, tabs and colours."""
    if text.removesuffix("\n").isprintable():
        return text
    # The pattern is a group, so every second part is what it found.
    parts = _ALLOWED.split(text)
    return "".join(part if index % 2 else visible(part) for index, part in enumerate(parts))
