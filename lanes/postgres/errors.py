"""What an error of Postgres is called by us, and what it may say where others read it.

`translated` makes one of our errors of it: of a missing table, of a right that is denied, of a server that does not
answer. What it says is what is wrong and where, and no value of a row.

Postgres repeats values: of the row that broke a constraint (DETAIL), of the line of a COPY (CONTEXT), of what it could
not read (in the message itself). They are accounts, amounts and keys of customers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from ...schemas.errors import ConfigurationError, CreditlaneError, NotMigrated, Unavailable
from ...schemas.roles import Part, denied
from .sessions import AnySession, Attempts, ServerSilent

#: Longest message, in characters.
MAX_CHARACTERS = 500


def error_text(error: BaseException) -> str:
    """Return one line on the error: of Postgres's answers the state, the message, and the table and constraint."""
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return " ".join(str(error).split())[:MAX_CHARACTERS]
    diagnosis = error.diag
    message = diagnosis.message_primary or " ".join(str(error).split())
    if error.sqlstate.startswith("22"):
        # A data exception quotes the value behind a colon: invalid input syntax for type numeric: "…".
        message = message.partition(": ")[0]
    named = {"table": diagnosis.table_name, "column": diagnosis.column_name, "constraint": diagnosis.constraint_name}
    objects = ", ".join(f"{name} {value}" for name, value in named.items() if value)
    return f"{error.sqlstate}: {message}{f' ({objects})' if objects else ''}"[:MAX_CHARACTERS]


def without_rows(error: BaseException) -> BaseException:
    """Let this error and those that led to it say what `error_text` does, for a traceback; return it.

    What a program asks of them, their state and diagnosis, stays.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        if isinstance(each, psycopg.Error):
            each.args = (error_text(each),)
    return error


@contextmanager
def translated(*parts: Part, only_reads: bool = False) -> Iterator[None]:
    """Raise what Postgres answers, or does not, as errors of ours; a denied right names the roles of these parts.

    `only_reads`: whatever else goes wrong is Unavailable, too; without it, as for what writes, it is let through.

    Raises:
        NotMigrated: a table is missing.
        DeniedByRole: the role lacks a right.
        Unavailable: Postgres cannot be reached, or does not answer.
    """
    try:
        yield
    except psycopg.Error as error:
        if refusal := _refusal(error, parts):
            raise refusal from error
        if not only_reads and not isinstance(error, psycopg.OperationalError):
            raise
        cannot = "read" if only_reads else "reached"
        raise Unavailable(f"Postgres cannot be {cannot}: {error_text(error)}") from error


@contextmanager
def refusals_translated(*parts: Part) -> Iterator[None]:
    """Do as `translated` does with what Postgres refuses; that it cannot be reached is for who tries again.

    Raises:
        NotMigrated: a table is missing.
        DeniedByRole: the role lacks a right.
    """
    try:
        yield
    except psycopg.Error as error:
        if refusal := _refusal(error, parts):
            raise refusal from error
        raise


def _refusal(error: psycopg.Error, parts: Sequence[Part]) -> CreditlaneError | None:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return NotMigrated()
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return denied(error, *parts)
    return None


def was_cut(session: AnySession, error: psycopg.OperationalError) -> bool:
    """Return whether the error is the session's end, which says nothing of the next one."""
    return session.closed and not isinstance(error, ServerSilent)


def no_session(making: Attempts) -> CreditlaneError:
    """Return why a pool has no session: what the latest attempt to make one has met, if it has."""
    if isinstance(making.error, ConfigurationError):
        return making.error
    reason = "no connection came free in time" if making.error is None else error_text(making.error)
    return Unavailable(f"Postgres cannot be reached: {reason}")
