"""What the fault tests share. With CREDITLANE_TEST_LONG=1 each of them runs with many seeds and more commands."""

from .worker_processes import start_worker

__all__ = ["start_worker"]
