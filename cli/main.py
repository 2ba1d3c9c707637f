"""The entry point of the `creditlane` command: what can go wrong becomes one line and an exit code."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What the command line needs beside the plain install.
COMMAND_LINE_PACKAGES = ("typer", "rich", "alembic", "sqlalchemy", "structlog")
#: Set to anything, it lets the traceback of an error through.
TRACEBACK_VARIABLE = "CREDITLANE_TRACEBACK"

FAILED = 1
INTERRUPTED = 130
#: What a shell adds to the number of a signal, for the exit code of what it has ended.
SIGNALLED = 128


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] == ["worker", "alive"]:
        # Asked for every few seconds, beside a worker that has work to do: without a parser of options.
        from .worker_alive import report_alive

        sys.exit(report_alive())
    # First of all: to a container's first process, a signal without a handler is none.
    with _interrupted_by_sigterm() as received:
        _write_what_the_terminal_can_show()
        if any(importlib.util.find_spec(package) is None for package in COMMAND_LINE_PACKAGES):
            sys.stderr.write("the command line needs `pip install 'creditlane[worker]'`\n")
            sys.exit(FAILED)
        code = _run()
        sys.exit(SIGNALLED + received[0] if received else code)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[list[int]]:
    """Let SIGTERM interrupt what is under way as Ctrl-C does, until that has a handler; a second one ends it.

    Gives a list of what was received.
    """
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(SIGNALLED + number)
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    except KeyboardInterrupt:
        sys.exit(SIGNALLED + received[0] if received else INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _write_what_the_terminal_can_show() -> None:
    """Let characters that the encoding of a stream lacks be escapes: a customer's name must not end a listing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        from ..lanes.log_stream import adopt_standard_error
        from ..schemas.control_characters import visible

        # Also for a traceback: the stream takes passwords out.
        stream = adopt_standard_error()
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        # The names of folders are others' to choose, colours that hide the rest of a line among them.
        stream.write(f"creditlane: {visible(_one_line(error))}\n")
        return FAILED
    return 0


def _one_line(error: Exception) -> str:
    from ..lanes.postgres.errors import error_text
    from ..schemas.errors import CreditlaneError

    if isinstance(error, UnicodeEncodeError) and any(map(_is_no_text, sys.argv)):
        return "an argument is not UTF-8; write it in UTF-8"
    line = " ".join(error.message.split()) if isinstance(error, CreditlaneError) else error_text(error)
    if isinstance(error, CreditlaneError | OSError):
        return line
    # A connection lost under redis, psycopg or SQLAlchemy; else a mistake in Creditlane.
    return f"{type(error).__name__}: {line} (set {TRACEBACK_VARIABLE}=1 to see where)"


def _is_no_text(argument: str) -> bool:
    # Python hands on bytes that it could not decode as halves of characters.
    return any("\ud800" <= character <= "\udfff" for character in argument)
