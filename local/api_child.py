"""A process that serves the API on a socket which its starter listens on, and that ends with its starter.

The socket outlives a server that dies: connections wait on it for the next one.
"""

from __future__ import annotations

import socket
import sys

from ..cli.end_with_parent import end_with_starter
from ..lanes.log_stream import adopt_standard_error
from ..schemas.errors import CreditlaneError
from ..schemas.settings import load_settings


def main() -> int:
    """Serve on the socket of the descriptor in the first argument until stopped. Returns the exit code."""
    end_with_starter()
    from ..producer.api.serving import serve

    try:
        with socket.socket(fileno=int(sys.argv[1])) as listening:
            serve(load_settings(), listening)
    except CreditlaneError as error:
        adopt_standard_error().write(f"creditlane api: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
