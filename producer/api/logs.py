"""Structured logs of the API on standard error: readable on a terminal, JSON lines elsewhere, lost where it is full.

What libraries log by the standard module, uvicorn among them, goes the same way and has the same request id.
"""

from __future__ import annotations

import logging

import structlog
from structlog.typing import Processor

from ...schemas.log_stream import adopt_standard_error

#: What every line has, whoever logs it.
_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(log_format: str | None) -> None:
    """Set up logging for this process; `json`, `console`, or None to choose by whether a person is watching."""
    stream = adopt_standard_error()
    chosen = log_format or ("console" if stream.isatty() else "json")
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if chosen == "console" else structlog.processors.JSONRenderer()
    )
    finishing = [renderer] if chosen == "console" else [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*_COMMON, *finishing],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finishing],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
