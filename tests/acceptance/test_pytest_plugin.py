"""The fixtures that users' tests get, and the tests of the guide: in a pytest outside of the tree, as theirs is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from creditlane.local.processes import wait_until

#: Far more than it takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 300.0
pytestmark = pytest.mark.timeout(600)

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)

INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
TESTS = """
import urllib.request

from creditlane import Client, Credit


def test_both_clients_share_the_ledger_of_the_test(creditlane_client, creditlane_async_client, creditlane_ledger):
    account = creditlane_client.ensure_account(customer_id="ann", initial_balance=10)
    assert creditlane_async_client.ledger is creditlane_client.ledger is creditlane_ledger
    assert [each.id for each in creditlane_client.accounts()] == [account.id]


def test_each_test_has_a_ledger_and_a_clock_of_its_own(creditlane_client, creditlane_clock):
    assert list(creditlane_client.accounts()) == []
    account = creditlane_client.ensure_account(customer_id="ann")
    at = creditlane_clock.now().replace(year=creditlane_clock.now().year + 1, month=1, day=1)
    gift = Credit(account_id=account.id, amount=5, reference="gift", idempotency_key="gift")
    creditlane_client.schedule(gift, at=at)
    assert creditlane_client.balance(account.id) == 0
    creditlane_clock.move_to(at)
    assert creditlane_client.balance(account.id) == 5


def test_the_stack_is_real(creditlane_settings, creditlane_stack):
    with Client(creditlane_settings) as client:
        account = client.ensure_account(customer_id="ann", initial_balance=10)
        assert client.debit(account.id, 3, reference="r", idempotency_key="k").balance == 7
    key = creditlane_stack.new_api_key(creditlane_settings.store)
    url = f"{creditlane_stack.api_url}/v1/customer-credits/accounts"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"x-api-key": key})) as answer:
        assert account.id in answer.read().decode()
    print("data in", creditlane_settings.database_url.partition("host=")[2])


def test_each_test_has_a_store_of_its_own_on_the_same_stack(creditlane_settings, creditlane_stack):
    assert creditlane_settings.store != creditlane_stack.settings.store
    with Client(creditlane_settings) as client:
        assert list(client.accounts()) == []
    print("data in", creditlane_settings.database_url.partition("host=")[2])
"""


def test_the_fixtures_are_there_wherever_creditlane_is_installed(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "test_guide.py").write_text("\n\n".join(BLOCKS))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr
    guides = sum(block.count("def test_") for block in BLOCKS)
    assert guides >= 6
    assert f"{guides + 4} passed" in done.stdout
    # One stack for both tests, and nothing of it is left.
    (directory,) = set(re.findall(r"data in (/\S+?)/data/", done.stdout))
    assert wait_until(lambda: not Path(directory).exists(), seconds=10)


def test_a_stack_ends_with_the_process_that_started_it() -> None:
    """Given a process whose command goes on for ever, when its starter's end of the pipe is closed, then it ends."""
    program = (
        "import threading; from creditlane.testing import stack_process; "
        "stack_process.run_command = lambda: print('runs', flush=True) or threading.Event().wait(); "
        "stack_process.main()"
    )
    command = [sys.executable, "-c", program]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "runs\n"
        process.stdin.close()
        assert process.wait(60) == -15
