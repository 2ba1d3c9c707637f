"""A part that fails ends its process, also when that cannot be logged."""

from typing import Any

import pytest

from creditlane.schemas.settings import Settings
from creditlane.worker import process as worker_process
from creditlane.worker.jobs import process as jobs_process
from creditlane.worker.jobs.process import JobsProcess
from creditlane.worker.process import Worker

SETTINGS = Settings(redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/none")


class BrokenLog:
    """A log of which every line raises."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(28, "No space left on device")


def fail() -> None:
    raise RuntimeError("a fault that nobody expects")


@pytest.mark.parametrize(
    ("module", "made"),
    [(worker_process, lambda: Worker(SETTINGS)), (jobs_process, lambda: JobsProcess(SETTINGS, "jobs"))],
    ids=["worker", "jobs"],
)
def test_a_part_that_fails_stops_its_process_first(module: Any, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_log", BrokenLog())
    process = made()

    process._guard(fail)

    assert process._stopping.is_set()
    assert isinstance(process._failure, RuntimeError)
