"""Folders that are private stay so, whoever has to reach what is in them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from creditlane.local import reachable_paths
from creditlane.local.reachable_paths import barrier_to, path_for_data, programs_for
from creditlane.local.server_user import ServerUser
from creditlane.local.trusted_paths import UntrustedPath
from creditlane.schemas.errors import ConfigurationError

#: Of no group of ours.
STRANGER = ServerUser(54_321, 54_321, switched=True)


@pytest.fixture
def home(workspace: Path) -> Path:
    """A folder in a private one, all of which others may pass but that."""
    private = workspace / f"private-{os.urandom(4).hex()}"
    private.mkdir(mode=0o700)
    (private / "project").mkdir(mode=0o755)
    return private / "project"


@pytest.fixture(autouse=True)
def shared(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /var/lib/creditlane."""
    path = workspace / f"shared-{os.urandom(4).hex()}"
    monkeypatch.setattr(reachable_paths, "SHARED_DIRECTORY", path)
    return path


@pytest.fixture(autouse=True)
def _nothing_is_opened(home: Path, workspace: Path) -> Iterator[None]:
    watched = [home.parent, home, workspace, *workspace.parents]
    before = [stat.S_IMODE(path.stat().st_mode) for path in watched]
    yield
    assert [stat.S_IMODE(path.stat().st_mode) for path in watched] == before


def test_the_first_folder_that_is_closed_is_found(home: Path) -> None:
    assert barrier_to(home / "postgres", STRANGER) == home.parent
    assert barrier_to(home.parent, STRANGER) is None
    own = ServerUser(os.geteuid(), os.getegid(), switched=True)
    assert barrier_to(home / "postgres", own) is None


def test_data_behind_a_private_folder_go_to_where_they_can_be_reached(home: Path, shared: Path) -> None:
    data_dir = home / "postgres"

    path, remark = path_for_data(data_dir, STRANGER)

    assert path.parent.parent == shared
    assert data_dir.readlink() == path
    assert barrier_to(path, STRANGER) is None
    assert stat.S_IMODE(shared.stat().st_mode) == 0o711
    assert remark is not None
    assert str(path) in remark
    assert str(home.parent) in remark
    # From then on the link leads there, and two folders never to one path.
    assert path_for_data(data_dir.resolve(), STRANGER) == (path, None)
    assert path_for_data(home / "other", STRANGER)[0].parent != path.parent


def test_data_that_are_there_are_not_moved(home: Path) -> None:
    data_dir = home / "postgres"
    data_dir.mkdir()

    with pytest.raises(ConfigurationError, match=r"chmod o\+x") as caught:
        path_for_data(data_dir, STRANGER)
    assert str(home.parent) in caught.value.message


def test_a_path_that_somebody_else_has_made_is_not_used(home: Path, shared: Path) -> None:
    shared.mkdir()
    shared.chmod(0o777)

    with pytest.raises(UntrustedPath, match="can be written by others"):
        path_for_data(home / "postgres", STRANGER)
    assert not (home / "postgres").exists()


def test_where_no_path_can_be_used_the_error_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable_paths, "SHARED_DIRECTORY", home / "shared")

    with pytest.raises(ConfigurationError, match="--data-dir"):
        path_for_data(home / "postgres", STRANGER)


@pytest.mark.parametrize("is_private", [True, False])
def test_programs_that_cannot_be_run_are_copied_once(is_private: bool, home: Path, shared: Path) -> None:
    parent = home if is_private else home.parent.parent / f"{home.parent.name}-open"
    program = parent / "package" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o775 if is_private else 0o755)
    library = parent / "package.libs"
    library.mkdir(mode=0o700)
    (library / "libpq.so").touch(0o600)

    found = programs_for(STRANGER, [program.parent.parent, library], program)

    if not is_private:
        assert found == program
        return
    assert found.parents[3] == shared
    assert found.read_text() == "#!/bin/sh\n"
    assert stat.S_IMODE(found.stat().st_mode) == 0o755
    assert stat.S_IMODE((found.parents[2] / "package.libs" / "libpq.so").stat().st_mode) == 0o604
    assert barrier_to(found, STRANGER) is None
    assert programs_for(STRANGER, [program.parent.parent, library], program) == found
    assert [path.name for path in shared.iterdir()] == [found.parents[2].name]
