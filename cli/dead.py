"""`creditlane dead list|show|replay`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel

from ..producer.operations.dead_letters import DeadLetter, DeadLetters, escaped
from ..schemas.control_characters import visible
from ..schemas.errors import CreditlaneError, InvalidCommand, LaneFull, UndecodableCommand
from ..schemas.settings import load_operator_settings
from .output import print_json, print_line, print_table

dead_app: typer.Typer = typer.Typer(
    name="dead",
    no_args_is_help=True,
    help="Look at the dead letters, commands that could not be decided, and put them back on their lanes.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class DeadLetterList(BaseModel):
    """What `dead list --json` prints."""

    dead_letters: list[DeadLetter]


class ReplayReport(BaseModel):
    """What `dead replay --json` prints."""

    replayed: list[str]
    #: Why a dead letter could not be put back, by its id.
    refused: dict[str, str]


@dead_app.command("list")
def list_command(
    replayed: Annotated[bool, typer.Option("--all", help="Also list those that were replayed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="List at most so many, the oldest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the dead letters, oldest first.

    Example:  creditlane dead list --json | jq -r '.dead_letters[].reason'
    """
    with DeadLetters.connect(load_operator_settings()) as letters:
        found = list(letters.find(replayed=replayed, limit=limit))
    if as_json:
        print_json(DeadLetterList(dead_letters=found))
        return
    if not found:
        print_line("0 dead letters")
        return
    rows = [
        (
            str(letter.dead_letter_id),
            f"{letter.created_at:%F %T}",
            _state(letter),
            letter.store_id,
            letter.code,
            letter.reason,
        )
        for letter in found
    ]
    print_table(["id", "since", "state", "store", "code", "reason"], rows, title="Dead letters")


@dead_app.command("show")
def show_command(
    dead_letter_id: Annotated[str, typer.Argument(help="Its id, as `dead list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with the command's bytes, escaped.

    Example:  creditlane dead show 0b9f6a3e-7d3c-4f0e-9f55-2f5f6f1c7a10
    """
    with DeadLetters.connect(load_operator_settings()) as letters:
        letter = letters.get(dead_letter_id)
    if as_json:
        print_json(letter)
        return
    for name, value in letter:
        shown = escaped(value) if isinstance(value, bytes) else "-" if value is None else visible(str(value))
        print_line(f"{name:<16}{shown}")


@dead_app.command("replay")
def replay_command(
    dead_letter_id: Annotated[str | None, typer.Argument(help="Its id, as `dead list` shows it.")] = None,
    every_one: Annotated[bool, typer.Option("--all", help="Replay every one that was not, oldest first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back at the end of their accounts' lanes, once their cause is gone.

    Safe to repeat: a command has one effect, however often it is replayed. Ends with 1 if one could not be put back,
    as when its bytes do not say which account it is for.

    Example:  creditlane dead replay --all
    """
    if (dead_letter_id is None) == (not every_one):
        raise typer.BadParameter("name one dead letter, or --all")
    with DeadLetters.connect(load_operator_settings()) as letters:
        wanted = list(letters.find()) if dead_letter_id is None else [letters.get(dead_letter_id)]
        report = _replay(letters, wanted)
    if as_json:
        print_json(report)
    else:
        for identifier, reason in report.refused.items():
            print_line(f"refused {identifier}: {visible(reason)}")
        print_line(f"{len(report.replayed):,} replayed, {len(report.refused):,} refused")
    raise typer.Exit(1 if report.refused else 0)


def _replay(letters: DeadLetters, wanted: list[DeadLetter]) -> ReplayReport:
    report = ReplayReport(replayed=[], refused={})
    for letter in wanted:
        identifier = str(letter.dead_letter_id)
        try:
            letters.replay(letter)
        except (InvalidCommand, UndecodableCommand, LaneFull) as error:
            report.refused[identifier] = error.message
        except CreditlaneError as error:
            raise type(error)(f"{error.message} ({len(report.replayed)} were replayed before.)") from error
        else:
            report.replayed.append(identifier)
    return report


def _state(letter: DeadLetter) -> str:
    return "waiting" if letter.replayed_at is None else "replayed"
