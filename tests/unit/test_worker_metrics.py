"""What a worker counts adds up, and reads back as it was written."""

import msgspec

from creditlane.schemas.journal import JournalRow, Refusal
from creditlane.schemas.worker_metrics import Distribution, StageTrouble, WorkerMetrics
from creditlane.worker.ledger.state import Outcome
from creditlane.worker.metrics import Metrics


def row(rejection: str | None = None) -> JournalRow:
    return JournalRow(1, "cca_" + "0" * 32, 1, 2, 1, 5, 5, 0, "k", "r", None, 0, rejection, None)


def read_back(metrics: Metrics) -> WorkerMetrics:
    return msgspec.json.decode(metrics.encoded(), type=WorkerMetrics)


def test_every_command_counts_as_what_became_of_it() -> None:
    metrics = Metrics()

    metrics.note_outcomes([Outcome(row()), Outcome(row()), Outcome(row(), replayed=True)])
    metrics.note_outcomes([Outcome(row("account_frozen")), Outcome(row("account_frozen"), replayed=True)])
    metrics.note_outcomes([Outcome(None, refusal=Refusal("dead_lettered", "m"))])

    assert read_back(metrics).outcomes == {"applied": 2, "replayed": 2, "account_frozen": 1, "dead_lettered": 1}


def test_batches_and_lanes_add_up() -> None:
    metrics = Metrics()

    metrics.note_batch(1, 0.001)
    metrics.note_batch(8_000, 9.0)
    metrics.note_lanes(5, 0)
    metrics.note_lanes(0, 2)

    numbers = read_back(metrics)
    assert (numbers.batch_commands.sum, sum(numbers.batch_commands.counts)) == (8_001, 2)
    assert (numbers.batch_seconds.counts[0], numbers.batch_seconds.counts[-1]) == (1, 1)
    assert (numbers.lanes_gained, numbers.lanes_lost) == (5, 2)


def test_a_value_on_a_bound_is_within_it() -> None:
    values = Distribution.over((1, 10))
    for value in (1, 1.5, 10, 10.5):
        values.take(value)

    assert values.counts == [1, 2, 1]
    assert values.sum == 23


def test_a_worker_that_counted_nothing_can_be_read() -> None:
    assert msgspec.json.decode("{}", type=WorkerMetrics) == WorkerMetrics()


def test_how_long_nothing_was_committed_begins_with_a_commit_or_with_lanes() -> None:
    now = [100.0]
    metrics = Metrics(lambda: now[0])
    assert read_back(metrics).seconds_since_commit is None

    metrics.note_lanes(3, 0)
    now[0] += 5
    assert read_back(metrics).seconds_since_commit == 5

    metrics.note_batch(1, 0.1)
    now[0] += 2
    metrics.note_lanes(0, 3)
    assert read_back(metrics).seconds_since_commit == 2


def test_what_does_not_get_on_is_read_back() -> None:
    metrics = Metrics()
    trouble = StageTrouble("Redis is away", 12.5, 3)

    numbers = msgspec.json.decode(
        metrics.encoded(troubles={"reader": trouble}, standing_lanes={7: 21.0}), type=WorkerMetrics
    )

    assert (numbers.troubles, numbers.standing_lanes) == ({"reader": trouble}, {7: 21.0})
    assert read_back(metrics).troubles == {}
