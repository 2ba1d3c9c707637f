"""Serves the API in this process, until it is told to stop."""

from __future__ import annotations

import gc
import signal
import socket

import uvicorn

from ...schemas.errors import ConfigurationError
from ...schemas.settings import Settings
from .app import create_app
from .logs import configure_logs

#: How long a connection without a request stays open, in seconds. Longer than the usual proxy keeps its own idle.
KEEP_ALIVE_SECONDS = 75
#: How much longer than its wait for a result a request may take at a stop, in seconds.
STOP_MARGIN_SECONDS = 5.0


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve on the socket until SIGTERM or SIGINT; then finish the requests under way and return.

    Raises:
        ConfigurationError: it cannot start as it is set up.
    """
    configure_logs(settings.log_format)
    config = uvicorn.Config(
        create_app(settings),
        # The request log has a line for every request, with its id.
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.wait_timeout_seconds + STOP_MARGIN_SECONDS),
    )
    server = uvicorn.Server(config)
    # At its end uvicorn raises the signals it got once more, for handlers like these: to be told to stop is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    # What is loaded by now stays: looking through it again and again for garbage would hold requests up by 50 ms.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listening])
    if not server.started:
        raise ConfigurationError("the API cannot start; its log says why")
