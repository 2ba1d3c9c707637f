"""A request to the batch endpoint whose body is sent while its answer is read."""

import http.client
from urllib.parse import urlsplit

from .requests_of import COMMANDS, DEADLINE_SECONDS


class Duplex:
    """A connection that sends and reads as it likes."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_SECONDS)
        self._connection.putrequest("POST", COMMANDS)
        self._connection.putheader("x-api-key", key)
        self._connection.putheader("Transfer-Encoding", "chunked")
        self._connection.endheaders()

    def send(self, body: bytes) -> None:
        self._connection.send(b"%x\r\n%b\r\n" % (len(body), body))

    def finish(self) -> None:
        self._connection.send(b"0\r\n\r\n")

    def response(self) -> http.client.HTTPResponse:
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()
