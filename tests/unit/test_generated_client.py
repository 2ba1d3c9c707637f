"""The blocking client is what the asyncio one becomes: a change of one of them alone is noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = Path("producer/client")
SCRIPT = Path("tools/generate_sync_client.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script reads."""
    for folder in ("_async", "_sync"):
        shutil.copytree(ROOT / CLIENT / folder, tmp_path / CLIENT / folder)
    (tmp_path / SCRIPT).parent.mkdir()
    for path in (SCRIPT, Path("pyproject.toml")):
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def generate(tree: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(tree / SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_change_of_one_client_is_noticed_and_made_in_the_other(tree: Path) -> None:
    replace(tree / CLIENT / "_async/listener.py", "STOP_SECONDS = 1.0", "STOP_SECONDS = 1.5")
    (tree / CLIENT / "_sync/left_over.py").touch()

    code, output = generate(tree, "--check")
    assert code == 1
    assert "listener.py, left_over.py" in output
    assert "+STOP_SECONDS = 1.5" in output

    assert generate(tree) == (0, "")
    assert "STOP_SECONDS = 1.5" in (tree / CLIENT / "_sync/listener.py").read_text()
    assert generate(tree, "--check") == (0, "")


def test_what_cannot_be_said_in_both_ways_is_refused(tree: Path) -> None:
    replace(tree / CLIENT / "_async/listener.py", "import logging\n", "import asyncio\nimport logging\n")

    code, output = generate(tree)

    assert (code, "no blocking form: ['import asyncio']" in output) == (1, True)


def test_a_substitution_that_fits_nothing_is_refused(tree: Path) -> None:
    replace(tree / SCRIPT, r'(r"\banext\(", "next("),', r'(r"\banext\(", "next("), (r"\bgone\b", "away"),')

    code, output = generate(tree)

    assert (code, "fit nothing: ['\\\\bgone\\\\b']" in output) == (1, True)
