"""Logs of the API.

What libraries log by the standard module, uvicorn among them, goes the same way and has the same request id.
"""

from __future__ import annotations

import logging

import structlog

from ...lanes import logs


def configure_logs(log_format: str | None) -> None:
    """Set up logging for this process; `json`, `console`, or None to choose by whether a person is watching."""
    stream, finishing = logs.configure_logs(log_format)
    structlog.configure(cache_logger_on_first_use=True)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=logs.COMMON,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finishing],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
