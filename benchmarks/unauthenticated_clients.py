"""What clients without a key do to an API that has no limits of its own; `front_door` measures what others notice.

Run as a process of its own, so that it shares no interpreter with who measures:
`python -m creditlane.benchmarks.unauthenticated_clients NAME HOST PORT CONNECTIONS`, until its standard input ends.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: Another address of this machine, where it has all of 127.0.0.0/8.
STRANGER_HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
#: How long one send or one answer may take, in seconds.
TIMEOUT_SECONDS = 60.0
MEBIBYTE = 1_048_576
_PART = b"x" * 65_536
_REQUEST = b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_HEAD = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"

Act = Callable[[socket.socket], None]


class Abuse(NamedTuple):
    """What is done on each connection, again and again, and on how many at a time."""

    act: Act
    connections: int


def _long_header(size: int) -> Act:
    def act(connection: socket.socket) -> None:
        connection.sendall(_HEAD + b"h: ")
        _send_much(connection, size)

    return act


def _long_url(connection: socket.socket) -> None:
    connection.sendall(b"GET /")
    _send_much(connection, 8 * MEBIBYTE)


def _many_headers(connection: socket.socket) -> None:
    connection.sendall(_HEAD)
    for _ in range(3_645):
        connection.sendall(b"a:\r\n" * 1_000)


def _slow_head(connection: socket.socket) -> None:
    connection.sendall(_HEAD)
    # A line now and then: too few for it to be too many of them.
    for _ in range(60):
        connection.sendall(b"a: x\r\n")
        if _wait_for_end(connection, 1.0):
            return


def _silence(connection: socket.socket) -> None:
    _wait_for_end(connection, TIMEOUT_SECONDS)


def _unknown_names(connection: socket.socket) -> None:
    body = b"{" + b",".join(b'"name_%06d":1' % number for number in range(65_000)) + b"}"
    path = b"/v1/customer-credits/accounts/cca_" + b"0" * 32 + b"/debit"
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(head % (path, len(body)) + body)
    connection.recv(65_536)


def _requests_for(path: bytes) -> Act:
    def act(connection: socket.socket) -> None:
        connection.sendall(_REQUEST % path)
        while connection.recv(MEBIBYTE):
            pass

    return act


#: By name.
ABUSES: dict[str, Abuse] = {
    "a header of 40 MiB": Abuse(_long_header(40 * MEBIBYTE), 1),
    "a header of 200 MiB": Abuse(_long_header(200 * MEBIBYTE), 1),
    "a URL of 8 MiB": Abuse(_long_url, 1),
    "3,645,000 header lines": Abuse(_many_headers, 1),
    "slow heads": Abuse(_slow_head, 200),
    "silent connections": Abuse(_silence, 1_500),
    "bodies of 65,000 unknown names": Abuse(_unknown_names, 8),
    "/metrics": Abuse(_requests_for(b"/metrics"), 8),
    "/openapi.json": Abuse(_requests_for(b"/openapi.json"), 8),
    "/healthz on many connections": Abuse(_requests_for(b"/healthz"), 200),
}


@contextlib.contextmanager
def unauthenticated_client(name: str, host: str, port: int, *, most_connections: int = 10_000) -> Iterator[None]:
    """Let a process do this to the server at this address for as long as the context lasts."""
    connections = min(ABUSES[name].connections, most_connections)
    command = [sys.executable, "-P", "-m", __name__, name, host, str(port), str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


def _abuse_for_ever(act: Act, host: str, port: int) -> None:
    while True:
        # What a limit of the server ends is begun anew.
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, port), TIMEOUT_SECONDS, source_address=(STRANGER_HOST, 0)) as connection,
        ):
            act(connection)


def _send_much(connection: socket.socket, size: int) -> None:
    for _ in range(size // len(_PART)):
        connection.sendall(_PART)


def _wait_for_end(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def main() -> int:
    """Abuse until standard input ends. Returns the exit code."""
    name, host, port, connections = sys.argv[1:]
    threading.stack_size(262_144)
    for _ in range(int(connections)):
        threading.Thread(target=_abuse_for_ever, args=(ABUSES[name].act, host, int(port)), daemon=True).start()
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
