"""An RQ process that ends with the process that started it."""

from __future__ import annotations

import sys

from .end_with_parent import end_with_starter


def main() -> int:
    """Run one RQ process on the queue of the arguments until stopped or its parent is gone; the exit code."""
    end_with_starter()
    from ..worker.jobs.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
