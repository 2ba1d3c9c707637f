"""The wheel holds the whole package, and its plain install is all that a web app needs."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What a web app that only enqueues and polls must not pay for.
TOO_HEAVY = {"alembic", "fastapi", "psycopg", "rich", "rq", "sqlalchemy", "starlette", "structlog", "typer", "uvicorn"}
#: Building and installing may wait for a package index.
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, check=False, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def package_directories() -> list[Path]:
    """The root and every folder of packages below it, by the one mark they share: an __init__.py."""
    tops = [path.parent for path in ROOT.glob("[a-z]*/__init__.py")]
    nested = [path.parent for top in tops for path in top.rglob("__init__.py")]
    return [ROOT, *sorted(set(nested))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools would pack what an earlier build left in build/."""
    source = tmp_path_factory.mktemp("source") / "creditlane"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "tests", "*.egg-info")
    )
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", cwd=source)
    (built,) = (source / "dist").glob("creditlane-*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the plain install in it."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(directory / "bin" / "python")]
    run(*pip, "install", "--quiet", wheel, cwd=directory)
    return directory


def test_every_package_of_the_tree_is_in_the_wheel(contents: set[str]) -> None:
    wanted = {Path("creditlane", path.relative_to(ROOT), "__init__.py").as_posix() for path in package_directories()}
    assert wanted <= contents


def test_every_file_of_the_packages_is_in_the_wheel(contents: set[str]) -> None:
    tops = {path for path in package_directories() if path.parent == ROOT}
    files = {path for top in tops for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {Path("creditlane", path.relative_to(ROOT)).as_posix() for path in files} <= contents


def test_the_wheel_is_typed_and_holds_no_tests(contents: set[str]) -> None:
    assert "creditlane/py.typed" in contents
    assert not [name for name in contents if "tests" in Path(name).parts]


def test_the_plain_install_gives_a_client_and_imports_nothing_heavy(environment: Path) -> None:
    program = "import json, sys; from creditlane import Client; print(json.dumps([Client.__module__, *sys.modules]))"
    module, *imported = json.loads(
        run(environment / "bin" / "python", "-I", "-W", "error", "-c", program, cwd=environment)
    )
    assert module.startswith("creditlane.producer")
    assert {name.partition(".")[0] for name in imported} & TOO_HEAVY == set()


def test_the_command_says_which_extra_it_needs(environment: Path) -> None:
    result = subprocess.run(
        [environment / "bin" / "creditlane", "status"], cwd=environment, capture_output=True, check=False, text=True
    )
    assert result.returncode != 0
    assert "creditlane[worker]" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_plain_install_has_clients_without_servers_and_fixtures_for_pytest(environment: Path) -> None:
    program = (
        "import json, sys; from importlib.metadata import entry_points; from creditlane.testing import FakeClient; "
        "account = FakeClient().ensure_account(customer_id='c', initial_balance=7); imported = list(sys.modules); "
        "(plugin,) = entry_points(group='pytest11', name='creditlane'); "
        "print(json.dumps([account.balance, plugin.value, *imported]))"
    )
    balance, plugin, *imported = json.loads(
        run(environment / "bin" / "python", "-I", "-W", "error", "-c", program, cwd=environment)
    )
    assert (balance, plugin) == (7, "creditlane.testing.pytest_plugin")
    assert {name.partition(".")[0] for name in imported} & {*TOO_HEAVY, "redis"} == set()
