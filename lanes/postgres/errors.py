"""What an error of Postgres may say where others read it: what is wrong and where, and no value of a row.

Postgres repeats values: of the row that broke a constraint (DETAIL), of the line of a COPY (CONTEXT), of what it could
not read (in the message itself). They are accounts, amounts and keys of customers.
"""

from __future__ import annotations

import psycopg

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
    places = ", ".join(f"{name} {value}" for name, value in named.items() if value)
    return f"{error.sqlstate}: {message}{f' ({places})' if places else ''}"[:MAX_CHARACTERS]


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
