"""What the benchmark of reads writes is a ledger that could be."""

from datetime import timedelta

from creditlane.benchmarks.plan import READ_ENTRIES
from creditlane.benchmarks.reads import APART


def test_the_longest_history_is_not_after_now() -> None:
    """It begins as it is written, and `verify` lets nothing pass that is more than a second after now."""
    longest = READ_ENTRIES * APART
    assert longest <= timedelta(seconds=1)
