"""Runs one worker process, configured by CREDITLANE_ variables: `python -m creditlane.worker`."""

from __future__ import annotations

import sys

from ..lanes.log_stream import adopt_standard_error
from ..schemas.errors import CreditlaneError
from ..schemas.settings import load_settings
from .process import run_worker


def main() -> int:
    """Run until asked to stop. Returns the exit code."""
    try:
        run_worker(load_settings())
    except CreditlaneError as error:
        adopt_standard_error().write(f"creditlane worker: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
