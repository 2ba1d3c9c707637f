"""Runs one RQ process, configured by CREDITLANE_ variables: `python -m creditlane.worker.jobs --queue deliveries`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ...lanes.log_stream import adopt_standard_error
from ...lanes.rq_queues import DELIVERIES, JOBS
from ...schemas.errors import CreditlaneError
from ...schemas.settings import load_settings
from .process import run_jobs_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until asked to stop. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="creditlane.worker.jobs", description=__doc__)
    parser.add_argument("--queue", choices=[DELIVERIES, JOBS], required=True)
    try:
        run_jobs_process(load_settings(), parser.parse_args(arguments).queue)
    except CreditlaneError as error:
        adopt_standard_error().write(f"creditlane jobs: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
