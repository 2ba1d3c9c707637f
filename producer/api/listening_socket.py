"""Where the API listens. Imports nothing of the web, so that whoever only holds the socket stays light."""

from __future__ import annotations

import os
import socket

from ...schemas.errors import ConfigurationError

#: Connections that may wait to be taken.
BACKLOG = 2_048


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 lets the system choose one that is free.

    Raises:
        ConfigurationError: the address is taken or is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Without what Python adds to the system's words: they would repeat the address. A name's errors are negative.
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from error


def address_of(listening: socket.socket) -> str:
    """Return the URL at which the socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"
