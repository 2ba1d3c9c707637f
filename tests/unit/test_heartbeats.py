"""A worker's heartbeat on its own machine: seen while it beats, gone with the process, believed from nobody else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from creditlane.cli import worker_alive
from creditlane.lanes import heartbeats
from creditlane.lanes.heartbeats import SLACK_SECONDS, Heartbeat, heartbeat_directory, read_signs

PREFIX = "tests"
LEASE_SECONDS = 10.0
#: Beats once, says so, and waits to be killed.
ONE_BEAT = """
import sys, time
from pathlib import Path
from creditlane.lanes.heartbeats import Heartbeat
heartbeat = Heartbeat(Path(sys.argv[1]), "tests", 10.0)
heartbeat.beat()
print("beats", flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the heartbeats, also for `creditlane worker alive`."""
    chosen = tmp_path / "heartbeats"
    monkeypatch.setenv("CREDITLANE_RUNTIME_DIR", str(chosen))
    monkeypatch.setenv("CREDITLANE_REDIS_PREFIX", PREFIX)
    return chosen


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock by which heartbeats are written and read."""

    def move(seconds: float) -> None:
        monkeypatch.setattr(heartbeats, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + seconds))

    return move


@pytest.fixture
def heartbeat(directory: Path) -> Heartbeat:
    return Heartbeat(directory, PREFIX, LEASE_SECONDS)


def test_a_heart_that_beats_is_seen_until_it_ends(heartbeat: Heartbeat, directory: Path) -> None:
    assert worker_alive.report_alive() == 1
    heartbeat.beat()
    (sign,) = read_signs(directory, PREFIX)
    assert (sign.process_id, sign.is_alive) == (os.getpid(), True)
    assert worker_alive.report_alive() == 0

    heartbeat.end()
    assert (read_signs(directory, PREFIX), list(directory.iterdir())) == ([], [])
    assert worker_alive.report_alive() == 1


def test_one_that_has_not_beaten_for_two_leases_is_dead_until_it_does(
    heartbeat: Heartbeat, later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    heartbeat.beat()
    later(2 * LEASE_SECONDS)
    assert worker_alive.report_alive() == 0
    later(2 * LEASE_SECONDS + SLACK_SECONDS + 1)
    assert worker_alive.report_alive() == 1
    assert f"worker process {os.getpid()} has had no heartbeat for 24 s" in capsys.readouterr().err

    heartbeat.beat()
    assert worker_alive.report_alive() == 0


def test_one_silent_process_beside_another_is_reported(
    directory: Path, later: Callable[[float], None], heartbeat: Heartbeat
) -> None:
    heartbeat.beat()
    later(100)
    other = Heartbeat(directory, PREFIX, LEASE_SECONDS)
    other.beat()
    assert worker_alive.report_alive() == 1
    heartbeat.end()
    assert worker_alive.report_alive() == 0


def test_workers_of_another_prefix_are_not_meant(directory: Path) -> None:
    Heartbeat(directory, "tests.more", LEASE_SECONDS).beat()
    assert read_signs(directory, PREFIX) == []


def test_a_killed_process_leaves_nothing_that_counts(heartbeat: Heartbeat, directory: Path) -> None:
    """Given a worker that was killed, then it is dead at once, and the next one removes what it left."""
    command = [sys.executable, "-c", ONE_BEAT, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "beats\n"
        assert [sign.process_id for sign in read_signs(directory, PREFIX)] == [process.pid]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_signs(directory, PREFIX) == []
    assert len(list(directory.iterdir())) == 1

    heartbeat.beat()
    assert [path.name.split("-")[1] for path in directory.iterdir()] == [str(os.getpid())]


def test_a_heartbeat_that_was_cleaned_away_comes_back(heartbeat: Heartbeat, directory: Path) -> None:
    heartbeat.beat()
    for path in directory.iterdir():
        path.unlink()
    heartbeat.beat()
    assert len(read_signs(directory, PREFIX)) == 1


@pytest.mark.parametrize("trap", ["link", "writable"])
def test_nothing_in_a_shared_folder_is_believed_that_others_may_have_written(
    trap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    monkeypatch.delenv("CREDITLANE_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    directory = heartbeat_directory(None)
    assert directory.parent == tmp_path
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.mkdir()
        directory.chmod(0o777)

    with pytest.raises(PermissionError, match="CREDITLANE_RUNTIME_DIR"):
        Heartbeat(directory, PREFIX, LEASE_SECONDS).beat()
    assert worker_alive.report_alive() == 1
    assert "is not a folder of this user alone" in capsys.readouterr().err


def test_the_last_worker_takes_along_the_folder_that_nobody_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    chosen = tmp_path / "chosen"
    own = [Heartbeat(heartbeat_directory(None), PREFIX, LEASE_SECONDS) for _ in range(2)]
    hearts = [*own, Heartbeat(chosen, PREFIX, LEASE_SECONDS)]
    for heart in hearts:
        heart.beat()

    own[0].end()
    assert heartbeat_directory(None).exists()
    for heart in hearts:
        heart.end()

    assert list(tmp_path.iterdir()) == [chosen]
