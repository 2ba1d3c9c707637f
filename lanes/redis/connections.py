"""How every connection to Redis is made, whoever makes it: the driver's options beside the URL."""

from __future__ import annotations

from typing import Any

#: How long a connection may take to be made, in seconds, unless an answer is waited for less.
CONNECT_TIMEOUT_SECONDS = 5.0


def connection_options(url: str, *, answer_seconds: float) -> dict[str, Any]:
    """Return the options for a connection to this URL, on which no answer is waited for longer than `answer_seconds`.

    RESP2 whatever the driver's default, which pins the shape of every answer, and bytes in and out. What the URL says
    itself comes before them.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "socket_connect_timeout": min(CONNECT_TIMEOUT_SECONDS, answer_seconds),
        "socket_timeout": answer_seconds,
    }
    # A unix socket has no keep-alive.
    return options if url.startswith("unix:") else {**options, "socket_keepalive": True}
