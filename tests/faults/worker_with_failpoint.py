"""A worker process that ends or stops itself at a chosen step: `worker_with_failpoint.py ACTION STEP NTH`.

The actions are "kill", "stop", "raise" an error that nobody expects, "linger" as on a slow network, and "none".
The steps are those that the worker reports to its listener (read, commit, announce, delete), and two inside the
transaction: "write", before anything is written, and "copy", while Postgres waits for the rows. Each step is printed on
standard error.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from creditlane.schemas.settings import load_settings
from creditlane.worker.process import run_worker
from creditlane.worker.store import transaction as store
from creditlane.worker.store.journal_rows import copy_text

#: Long enough that whoever does not wait for it is gone before.
LINGER_SECONDS = 1.0
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failpoint:
    """Listens to the steps and acts on itself at the chosen one."""

    def __init__(self, action: str, step: str, nth: int) -> None:
        self._action = action
        self._step = step
        self._nth = nth
        self._counts: Counter[str] = Counter()

    def __call__(self, step: str) -> None:
        self._counts[step] += 1
        # One write, so that the lines of several threads do not mix.
        sys.stderr.write(json.dumps({"event": "step", "step": step, "count": self._counts[step]}) + "\n")
        if (step, self._counts[step]) == (self._step, self._nth):
            self._act()

    def _act(self) -> None:
        if self._action in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self._action])
        elif self._action == "raise":
            raise RuntimeError("a fault that nobody expects")
        elif self._action == "linger":
            threading.Event().wait(LINGER_SECONDS)


def report_before(name: str, original: Callable[..., Any], listener: Failpoint) -> Callable[..., Any]:
    def reported(*arguments: Any) -> Any:
        listener(name)
        return original(*arguments)

    return reported


def main() -> None:
    action, step, nth = sys.argv[1:]
    listener = Failpoint(action, step, int(nth))
    setattr(store.LedgerStore, "_write", report_before("write", store.LedgerStore._write, listener))  # noqa: B010
    setattr(store, "copy_text", report_before("copy", copy_text, listener))  # noqa: B010
    run_worker(load_settings(), after_step=listener)


if __name__ == "__main__":
    main()
