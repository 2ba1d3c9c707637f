"""From where an RQ process imports: from what is installed, and not from the folder it happened to be started in."""

from __future__ import annotations

import sys
from pathlib import Path


def limit_import_path() -> None:
    """Take the current folder off the import path; `python -m` puts it there, before everything that is installed.

    What is imported later, when a job first needs it, could come from a file that somebody put there. A folder that
    PYTHONPATH names stays: whoever sets that decides what runs.
    """
    here = str(Path.cwd())
    if not sys.flags.safe_path and sys.path and sys.path[0] in {"", here}:
        del sys.path[0]
    sys.path[:] = [folder for folder in sys.path if folder != ""]
