"""A process that is `creditlane up` and ends with the process that started it.

Its standard input is a pipe into which nothing is written: the end of that file is the end of who started it.
"""

from __future__ import annotations

import os
import signal
import threading
from importlib.metadata import entry_points

STANDARD_INPUT = 0


def main() -> None:
    """Run the command of the arguments until it ends, or until the standard input does."""
    threading.Thread(target=_stop_at_end_of_input, name="parent", daemon=True).start()
    run_command()


def run_command() -> None:
    """Run the command of the arguments. It is found by its name: the command line is a layer above."""
    (command,) = entry_points(group="console_scripts", name="creditlane")
    command.load()()


def _stop_at_end_of_input() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
