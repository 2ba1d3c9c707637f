"""The entry point of the `creditlane` command: what can go wrong becomes one line and an exit code."""

from __future__ import annotations

import importlib.util
import os
import sys

#: What the command line needs beside the plain install.
COMMAND_LINE_PACKAGES = ("typer", "rich", "alembic", "sqlalchemy", "structlog")
#: Set to anything, it lets the traceback of an error through.
TRACEBACK_VARIABLE = "CREDITLANE_TRACEBACK"

FAILED = 1
INTERRUPTED = 130


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if any(importlib.util.find_spec(package) is None for package in COMMAND_LINE_PACKAGES):
        sys.stderr.write("the command line needs `pip install 'creditlane[worker]'`\n")
        sys.exit(FAILED)
    sys.exit(_run())


def _run() -> int:
    try:
        from .app import app

        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        from ..schemas.log_stream import adopt_standard_error

        # Also for a traceback: the stream takes passwords out.
        stream = adopt_standard_error()
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        stream.write(f"creditlane: {_one_line(error)}\n")
        return FAILED
    return 0


def _one_line(error: Exception) -> str:
    from ..schemas.errors import CreditlaneError
    from ..schemas.postgres_errors import error_text

    line = " ".join(error.message.split()) if isinstance(error, CreditlaneError) else error_text(error)
    if isinstance(error, CreditlaneError | OSError):
        return line
    # A connection lost under redis, psycopg or SQLAlchemy; else a mistake in Creditlane.
    return f"{type(error).__name__}: {line} (set {TRACEBACK_VARIABLE}=1 to see where)"
