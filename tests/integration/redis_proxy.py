"""A name for a Redis: connections made under it lead to one server or another, and can fall silent without an end."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit


class _Link(NamedTuple):
    near: socket.socket
    far: socket.socket
    #: What comes is swallowed, in both directions.
    is_silent: threading.Event


class RedisProxy:
    """Passes bytes between TCP connections and a Redis that listens on a unix socket."""

    def __init__(self, url: str) -> None:
        self._path = urlsplit(url).path
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self._start(self._serve)

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return len(self._links)

    def lead_to(self, url: str) -> None:
        """Let every connection that is made from now on lead to this server."""
        self._path = urlsplit(url).path

    def silence(self) -> None:
        """Pass nothing on any more on the connections that there are; they stay open."""
        for link in self._links:
            link.is_silent.set()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        for link in self._links:
            _end(link)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._path)
            link = _Link(near, far, threading.Event())
            self._links.append(link)
            self._start(self._pass, link, near, far)
            self._start(self._pass, link, far, near)

    def _pass(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if not link.is_silent.is_set():
                    target.sendall(data)
        except OSError:
            pass
        _end(link)


def _end(link: _Link) -> None:
    for end in (link.near, link.far):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
