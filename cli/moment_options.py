"""How the options of the command line take moments: as the API does."""

from __future__ import annotations

from datetime import datetime

import typer

from ..schemas.time import parse_moment

METAVAR = "MOMENT"


def moment_option(text: str) -> datetime:
    """Return the moment that an option names.

    Raises:
        typer.BadParameter: it names none.
    """
    try:
        return parse_moment(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no moment in ISO 8601, like 2026-03-01 or 2026-03-01T12:30:00.250Z"
        ) from None
