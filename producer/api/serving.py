"""Serves the API in this process, until it is told to stop."""

from __future__ import annotations

import signal
import socket

import uvicorn

from ...schemas.errors import ConfigurationError
from ...schemas.settings import Settings
from .app import create_app
from .logs import configure_logs

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8_000
#: Connections that may wait to be taken.
BACKLOG = 2_048
#: How long a connection without a request stays open, in seconds. Longer than the usual proxy keeps its own idle.
KEEP_ALIVE_SECONDS = 75
#: How much longer than its wait for a result a request may take at a stop, in seconds.
STOP_MARGIN_SECONDS = 5.0


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 lets the system choose one that is free.

    Raises:
        ConfigurationError: the address is taken or is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def address_of(listening: socket.socket) -> str:
    """Return the URL at which the socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


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
    server.run(sockets=[listening])
    if not server.started:
        raise ConfigurationError("the API cannot start; its log says why")
