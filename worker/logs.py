"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere, lost where it cannot be written."""

from __future__ import annotations

import logging

import structlog
from structlog.typing import Processor

from ..schemas.log_stream import adopt_standard_error


def configure_logs(log_format: str | None) -> None:
    """Set up logging for this process; `json`, `console`, or None to choose by whether a person is watching."""
    stream = adopt_standard_error()
    chosen = log_format or ("console" if stream.isatty() else "json")
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if chosen == "console" else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
