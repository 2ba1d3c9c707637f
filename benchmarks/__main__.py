"""Runs the benchmark without the rest of the command line: `python -m creditlane.benchmarks --json`."""

from __future__ import annotations

import sys

import typer

from ..schemas.errors import CreditlaneError
from .command import bench_command


def main() -> int:
    """Run the benchmark. Returns the exit code."""
    try:
        typer.run(bench_command)
    except CreditlaneError as error:
        sys.stderr.write(f"creditlane bench: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
