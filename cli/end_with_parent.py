"""Lets a child process end with the process that started it, even when that one is killed.

Its standard input is a pipe of which the starter holds the other end and into which nothing is ever written: the end
of that file is the end of the starter, on every system.
"""

from __future__ import annotations

import os
import signal
import threading

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2


def end_with_starter() -> None:
    """From now on, send this process SIGTERM when its starter is gone."""
    threading.Thread(target=_stop_without_starter, name="starter", daemon=True).start()


def _stop_without_starter() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    # The log went to the starter, too; writing to nobody must not disturb the stop.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (STANDARD_OUTPUT, STANDARD_ERROR):
        os.dup2(nowhere, descriptor)
    os.kill(os.getpid(), signal.SIGTERM)
