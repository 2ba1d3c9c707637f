"""The Python of README, of the guides and of the recipes prints what it says, also when it is run again."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from creditlane import Settings

from ..roles import settings_of

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
RECIPES = sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/recipes/*.md"))
#: What a line prints stands behind it.
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
PRINTS = re.compile(r"^ *print\(", re.MULTILINE)
#: A worker has to start first, on a busy machine.
DEADLINE_SECONDS = 60.0


@pytest.mark.usefixtures("running_worker")
@pytest.mark.parametrize("page", ["README.md", "docs/client.md", "docs/holds.md", *RECIPES])
def test_the_program_of_a_page_prints_what_it_says_each_time_that_it_is_run(
    page: str, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    """Given a new ledger, when the blocks of a page are run as one program, and again, then both print the same."""
    program = "\n".join(BLOCKS.findall((ROOT / page).read_text()))
    long_waiting = settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})
    environment = environment_of(settings_of("client", long_waiting))
    expected = PRINTED.findall(program)
    assert len(expected) == len(PRINTS.findall(program)) > 1

    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=3 * DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected
