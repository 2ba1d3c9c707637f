"""What another user of the machine has put into a folder is never taken for a stack of ours, nor run by a shell."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from creditlane.cli.main import main
from creditlane.local import trusted_paths
from creditlane.local.stack_record import LOCK_NAME, RECORD_NAME, claimed, find_running, recorded
from creditlane.local.trusted_paths import UntrustedPath

NOBODY = 65_534
SETTINGS = {"CREDITLANE_DATABASE_URL": "postgresql://attacker@evil/x"}
EVIL = {"CREDITLANE_STORE;touch owned;X": "1", "PATH": "evil", "CREDITLANE_NOTHING": "$(touch owned)"}

ENV = [sys.executable, "-c", "from creditlane.cli.main import main; main()", "env", "--export"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / ".creditlane"


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes paths another user's: really where that is allowed, else by taking this user for another."""

    def give(*paths: Path) -> None:
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            monkeypatch.setattr(trusted_paths.os, "geteuid", lambda: NOBODY)

    return give


def write_stack(data_dir: Path, settings: dict[str, str]) -> None:
    """Write what a stack leaves, as another program would."""
    data_dir.mkdir(mode=0o755)
    (data_dir / LOCK_NAME).touch(0o600)
    (data_dir / RECORD_NAME).write_text(json.dumps({"pid": 1, "workers": 1, "settings": settings}))


def test_a_shell_runs_nothing_of_another_user_s_folder(
    data_dir: Path,
    give_away: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Given a stack of somebody else in a folder above, when root asks for its settings, then there are none."""
    below = data_dir.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setattr(sys, "argv", ["creditlane", "env", "--export"])
    with claimed(data_dir), recorded(data_dir, 1, SETTINGS):
        give_away(data_dir, data_dir / LOCK_NAME, data_dir / RECORD_NAME)

        with pytest.raises(SystemExit) as ended:
            main()

    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert str(data_dir) in err
    assert "--data-dir" in err


@pytest.mark.parametrize("name", [LOCK_NAME, RECORD_NAME])
def test_each_file_is_checked(name: str, data_dir: Path, give_away: Callable[..., None]) -> None:
    with claimed(data_dir), recorded(data_dir, 1, SETTINGS):
        give_away(data_dir / name)
        with pytest.raises(UntrustedPath, match="belongs to"):
            find_running(data_dir)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_write_is_not_believed(mode: int, data_dir: Path) -> None:
    with claimed(data_dir), recorded(data_dir, 1, SETTINGS):
        for path in (data_dir, data_dir / RECORD_NAME):
            kept = path.stat().st_mode
            path.chmod(mode)
            with pytest.raises(UntrustedPath, match="can be written by others"):
                find_running(data_dir)
            path.chmod(kept)
        assert find_running(data_dir) is not None


def test_links_are_not_followed(data_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with claimed(data_dir), recorded(data_dir, 1, SETTINGS):
        other.symlink_to(data_dir)
        with pytest.raises(UntrustedPath, match="link"):
            find_running(other)

        record = data_dir / RECORD_NAME
        record.rename(tmp_path / "elsewhere")
        record.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UntrustedPath, match="link"):
            find_running(data_dir)
        record.unlink()
        os.mkfifo(record)
        with pytest.raises(UntrustedPath, match="no file"):
            find_running(data_dir)


def test_no_stack_starts_in_a_folder_of_another_user(data_dir: Path, give_away: Callable[..., None]) -> None:
    write_stack(data_dir, {})
    give_away(data_dir)

    with pytest.raises(UntrustedPath, match="belongs to"), claimed(data_dir):
        pass
    assert (data_dir / RECORD_NAME).exists()


def test_what_we_make_ourselves_is_believed_whatever_the_umask(data_dir: Path) -> None:
    before = os.umask(0)
    try:
        with claimed(data_dir), recorded(data_dir, 1, SETTINGS):
            assert find_running(data_dir) is not None
    finally:
        os.umask(before)


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / LOCK_NAME).symlink_to(tmp_path / "made")

    with pytest.raises(OSError, match="symbolic link"), claimed(data_dir):
        pass
    assert not (tmp_path / "made").exists()


def test_only_names_that_are_known_are_printed_and_every_value_is_quoted(data_dir: Path, tmp_path: Path) -> None:
    """Also in a folder of our own: what is printed is run."""
    settings = {**EVIL, "CREDITLANE_STORE": "store_a; touch owned", "CREDITLANE_API_KEY": "~root\n`touch owned`"}
    with claimed(data_dir), recorded(data_dir, 1, {}):
        (data_dir / RECORD_NAME).write_text(json.dumps({"pid": 1, "workers": 1, "settings": settings}))

        result = subprocess.run(ENV, capture_output=True, text=True, check=True, cwd=tmp_path)
        shell = 'eval "$1"; printf "%s|%s" "$CREDITLANE_STORE" "$CREDITLANE_API_KEY"; touch done'
        run = subprocess.run(
            ["/bin/sh", "-c", shell, "sh", result.stdout], capture_output=True, text=True, check=True, cwd=tmp_path
        )

    assert run.stdout == "store_a; touch owned|~root\n`touch owned`"
    assert {path.name for path in tmp_path.iterdir()} == {".creditlane", "done"}
    assert "PATH" not in result.stdout
    assert "NOTHING" not in result.stdout
