"""A running stack is found by other commands, and one that is gone is not taken for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from creditlane.cli.app import app
from creditlane.cli.main import main
from creditlane.local.stack_record import AlreadyRunning, claimed, find_running, recorded

PLAIN = {"CREDITLANE_REDIS_URL": "unix:///tmp/a/redis.sock?db=0"}
AWKWARD = {"CREDITLANE_DATABASE_URL": "postgresql://u:it's&$(x)@h/d"}

CLAIM_AND_WAIT = """
import sys
from pathlib import Path
from creditlane.local.stack_record import claimed, recorded
with claimed(Path(sys.argv[1])), recorded(Path(sys.argv[1]), 1, {}):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / ".creditlane"


def test_the_record_is_private_and_goes_with_the_stack(data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 2, PLAIN):
        path = data_dir / "stack.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())["settings"] == PLAIN

    assert not path.exists()
    assert find_running(data_dir) is None


def test_a_directory_has_one_stack(data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 2, PLAIN):
        with pytest.raises(AlreadyRunning, match="already running by process"), claimed(data_dir):
            pass
        running = find_running(data_dir)

    assert running is not None
    assert running.workers == 2


def test_the_record_of_a_killed_stack_is_stale(data_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_WAIT, data_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stack:
        assert stack.stdout is not None
        assert stack.stdout.readline() == "claimed\n"
        assert find_running(data_dir) is not None
        stack.kill()
        stack.wait()

    assert (data_dir / "stack.json").exists()
    assert find_running(data_dir) is None
    with claimed(data_dir):
        assert True


def test_a_record_that_is_half_written_or_strange_is_none(data_dir: Path) -> None:
    with claimed(data_dir):
        assert find_running(data_dir) is None
        (data_dir / "stack.json").write_text('{"pid": ')
        assert find_running(data_dir) is None


def test_the_nearest_directory_upwards_counts(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    with claimed(data_dir), recorded(data_dir, 2, PLAIN):
        result = CliRunner().invoke(app, ["env"])

    assert (result.exit_code, result.stdout) == (0, "CREDITLANE_REDIS_URL=unix:///tmp/a/redis.sock?db=0\n")


@pytest.mark.parametrize("settings", [PLAIN, AWKWARD])
def test_a_shell_reads_the_values_back(settings: dict[str, str], data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 2, settings):
        lines = CliRunner().invoke(app, ["env", "--export", "--data-dir", str(data_dir)]).stdout
    (name,) = settings
    script = f'eval "$1"; {sys.executable} -c "import os; print(os.environ[\'{name}\'])"'

    result = subprocess.run(["/bin/sh", "-euc", script, "sh", lines], capture_output=True, text=True, check=True)

    assert result.stdout == f"{settings[name]}\n"


def test_plain_values_stand_unquoted_for_env(data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 2, PLAIN):
        lines = CliRunner().invoke(app, ["env", "--data-dir", str(data_dir)]).stdout

    result = subprocess.run(
        ["/usr/bin/env", "-i", *lines.split(), "/usr/bin/env"], capture_output=True, text=True, check=True
    )

    assert result.stdout == lines


def test_a_program_gets_json(data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 2, AWKWARD):
        result = CliRunner().invoke(app, ["env", "--json", "--data-dir", str(data_dir)])

    assert json.loads(result.stdout)["settings"] == AWKWARD


def test_no_stack_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["creditlane", "env", "--data-dir", str(tmp_path)])

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    assert capsys.readouterr() == ("", f"creditlane: no stack runs in {tmp_path}; start one with `creditlane up`\n")
