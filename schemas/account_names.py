"""When two names of accounts are the same to who reads them, whatever their case, their marks and what is unseen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

#: Code points that nobody sees, but for white space: those that Unicode lets be ignored (Default_Ignorable_Code_Point),
#: controls, marks of annotations, and a letter of Braille without a dot. Written out, so that every version of Python
#: compares alike.
_UNSEEN_RANGES = (
    (0x0000, 0x0008),
    (0x000E, 0x001B),
    (0x007F, 0x0084),
    (0x0086, 0x009F),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_UNSEEN = dict.fromkeys(code for first, last in _UNSEEN_RANGES for code in range(first, last + 1))
#: What Python takes for white space, and patterns elsewhere do not.
_SPACE_RANGES = ((0x001C, 0x001F), (0x0085, 0x0085))
#: The last code point that a pattern can name in every dialect.
_LAST_OF_PATTERNS = 0xFFFF


def name_key(name: str) -> str:
    """Return what two names are compared by. It is empty where there is nothing to see of a name.

    What is unseen and white space around the rest are no part of it. The rest is compared by Unicode's canonical
    caseless matching (D145): decomposed, folded, and normalised again, since folding takes letters apart.
    """
    seen = name if name.isascii() and name.isprintable() else name.translate(_UNSEEN)
    folded = unicodedata.normalize("NFD", seen.strip()).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded))


def seen_pattern() -> str:
    """Return a pattern of JSON Schema for texts of which something is seen, but for what lies beyond 16 bits."""
    return rf"^[^\x00]*[^\s{''.join(_classes())}][^\x00]*$"


def _classes() -> Iterator[str]:
    for first, last in (*_UNSEEN_RANGES, *_SPACE_RANGES):
        if last <= _LAST_OF_PATTERNS:
            yield rf"\u{first:04x}" if first == last else rf"\u{first:04x}-\u{last:04x}"
