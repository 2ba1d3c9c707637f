"""Commands that are imported when they run: a command line that starts needs none of the others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

#: Boxes for a person, plain lines for a pipe.
MARKUP_MODE: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None


class Deferred(NamedTuple):
    """Where a command is, and what `--help` says of it without importing it."""

    #: Relative to the package of the local stack.
    module: str
    #: A function, or a `typer.Typer` with commands of its own.
    attribute: str
    #: The first sentence of its own help.
    summary: str


class DeferredGroup(TyperGroup):
    """A group that knows its commands by their summaries, and imports the one that runs."""

    #: By name, in the order of `--help`.
    deferred: Mapping[str, Deferred] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: dict[str, Any] = {
            name: TyperCommand(name, help=where.summary, rich_markup_mode=MARKUP_MODE)
            for name, where in self.deferred.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else loaded(name, self.deferred[name]), rest


def loaded(name: str, where: Deferred) -> Any:
    """Return the command itself."""
    target = getattr(import_module(where.module, __package__), where.attribute)
    holder = typer.Typer(add_completion=False, rich_markup_mode=MARKUP_MODE)
    if isinstance(target, typer.Typer):
        holder.add_typer(target, name=name)
    else:
        holder.command(name)(target)
    return typer.main.get_group(holder).commands[name]
