"""Texts that a spreadsheet would run as formulas, and how they are kept from it. Customers choose such texts."""

from __future__ import annotations

import re

#: What spreadsheets take for a formula, also behind blanks and in wide letters.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


def without_formula(text: str) -> str:
    """Return the text, with a ' before it if a spreadsheet would take it for a formula."""
    # None where an account or a reference is missing.
    return f"'{text}" if text and _FORMULA.match(text) else text
