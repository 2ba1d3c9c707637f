"""A worker process that ends with the process that started it."""

from __future__ import annotations

import sys

from .end_with_parent import end_with_starter


def main() -> int:
    """Run one worker until it is stopped or its parent is gone. Returns the exit code."""
    end_with_starter()
    from ..worker.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
