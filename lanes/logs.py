"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere, lost where it cannot be written.

The one set-up for every process, so that what must not stand in a log is kept out of all of them. Needs structlog, of
the extras `worker` and `api`.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ..schemas.control_characters import visible, visible_lines
from .log_stream import adopt_standard_error
from .postgres.errors import without_rows

#: What every line has, whoever logs it.
_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(log_format: str | None, *, of_libraries: bool = False) -> None:
    """Set up logging for this process; `json`, `console`, or None to choose by whether a person is watching.

    `of_libraries`: what they log by the standard module, uvicorn among them, goes the same way and has the same request
    id. It is for a process that logs a line for each request, so loggers are kept from their first use on.
    """
    stream = adopt_standard_error()
    chosen = log_format or ("console" if stream.isatty() else "json")
    finishing: list[Processor] = [_without_rows, structlog.processors.format_exc_info]
    if chosen == "console":
        # Tracebacks are text by then: the renderer's own would show the values of every variable.
        finishing += [_visible, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        finishing += [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*_COMMON, *finishing],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=of_libraries,
    )
    if of_libraries:
        _adopt_libraries(stream, finishing)
    sys.excepthook = _write_uncaught
    threading.excepthook = _write_uncaught_of_thread


def _adopt_libraries(stream: TextIO, finishing: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finishing],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _without_rows(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep the values of rows out of the traceback that is about to be made."""
    given = event.get("exc_info")
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        without_rows(error)
    return event


def _visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show control characters as escapes, before the renderer adds its colours; JSON has escapes of its own."""
    return {visible(name): _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name in {"exception", "stack"}:
        # Indented, so that no line of a message passes for a line of the log.
        return "\n".join(f"    {visible_lines(line)}" for line in value.replace("\x1b", "\\x1b").split("\n"))
    return visible(value)


def _write_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    without_rows(error)
    sys.__excepthook__(kind, error, trace)


def _write_uncaught_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        without_rows(arguments.exc_value)
    threading.__excepthook__(arguments)
