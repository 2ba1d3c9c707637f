"""What a dry run answers is what the command itself would have been answered, and the history goes on as without it."""

from hypothesis import given, settings

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.journal import Announcement
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, BatchState, Outcome

from .histories import ACCOUNTS, LONG, Sent, answer_of, histories

STORES = ("store_one", "store_two")
NOW_US = 1_000


def empty_state() -> BatchState:
    state = BatchState({(store, account): UNOPENED for store in range(len(STORES)) for account in ACCOUNTS})
    state.has_reversals = state.has_dry_runs = True
    return state


def decided(state: BatchState, history: list[Sent], *, dry_run: bool = False) -> list[Outcome]:
    commands = [sent.command.model_copy(update={"dry_run": dry_run}) for sent in history]
    addressed = [
        ((sent.store, str(command.account_id)), decode_command(encode_command(command, STORES[sent.store])))
        for sent, command in zip(history, commands, strict=True)
    ]
    return decide_all(addressed, state, NOW_US)


@settings(max_examples=1_000 if LONG else 40, deadline=None)
@given(history=histories(max_size=25))
def test_each_command_is_tried_before_it_is_sent(history: list[Sent]) -> None:
    """Given any history, when each command is tried and then sent, then both have one answer, and nothing else has."""
    tried_state, plain_state = empty_state(), empty_state()

    for sent in history:
        (tried,) = decided(tried_state, [sent], dry_run=True)
        (real,) = decided(tried_state, [sent])
        assert (tried.row, tried.further, tried.replayed, tried.refusal) == (
            real.row,
            real.further,
            real.replayed,
            real.refusal,
        )
        assert decided(plain_state, [sent]) == [real]
    assert vars(tried_state) == vars(plain_state)


@settings(max_examples=500 if LONG else 20, deadline=None)
@given(history=histories(max_size=25), others=histories(max_size=25))
def test_dry_runs_of_a_batch_change_no_answer(history: list[Sent], others: list[Sent]) -> None:
    """Given dry runs between the commands of one batch, then the commands are answered as without them."""
    state = empty_state()
    mixed = [item for pair in zip(history, others, strict=False) for item in pair] + history[len(others) :]
    is_dry = [at % 2 == 1 and at < 2 * min(len(history), len(others)) for at in range(len(mixed))]
    addressed = []
    for sent, dry in zip(mixed, is_dry, strict=True):
        command = sent.command.model_copy(update={"dry_run": dry})
        encoded = encode_command(command, STORES[sent.store])
        addressed.append(((sent.store, str(command.account_id)), decode_command(encoded)))

    outcomes = decide_all(addressed, state, NOW_US)

    assert [outcome.dry_run for outcome in outcomes] == is_dry
    answers = [
        answer_of(Announcement(0, outcome.row, outcome.replayed, outcome.refusal), sent.command)
        for outcome, sent, dry in zip(outcomes, mixed, is_dry, strict=True)
        if not dry
    ]
    assert len(answers) == len(history)
    assert answers == [
        answer_of(Announcement(0, outcome.row, outcome.replayed, outcome.refusal), sent.command)
        for outcome, sent in zip(decided(empty_state(), history), history, strict=True)
    ]
