"""Stores: tenants that see only what is their own. Made by an operator, never over HTTP."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, ClassVar

import psycopg
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict

from ...schemas.errors import InvalidCommand

STORE_PREFIX = "store_"
ID_BYTES = 8
#: Longest name of a store, in characters.
MAX_NAME_CHARACTERS = 100

_COLUMNS = "public_id as store_id, name, created_at"

CREATE_STORE = f"insert into stores (public_id, name) values (%(public_id)s, %(name)s) returning {_COLUMNS}"  # noqa: S608

FIND_STORE = "select 1 from stores where public_id = %(public_id)s"

LIST_STORES = f"select {_COLUMNS} from stores order by stores.store_id"  # noqa: S608


class StoreRecord(BaseModel):
    """A store."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    store_id: str
    name: str
    created_at: datetime


def create_store(connection: psycopg.Connection[Any], name: str) -> StoreRecord:
    """Make a new store. Its name is for people: two stores may have the same.

    Raises:
        InvalidCommand: the name is empty or too long.
    """
    if not 0 < len(name.strip()) <= MAX_NAME_CHARACTERS or "\0" in name:
        raise InvalidCommand(f"name: must have 1 to {MAX_NAME_CHARACTERS} characters", field="name")
    values = {"public_id": STORE_PREFIX + secrets.token_hex(ID_BYTES), "name": name.strip()}
    with connection.cursor(row_factory=class_row(StoreRecord)) as cursor:
        (store,) = cursor.execute(CREATE_STORE, values).fetchall()
    return store


def list_stores(connection: psycopg.Connection[Any]) -> list[StoreRecord]:
    """Return all stores, oldest first."""
    with connection.cursor(row_factory=class_row(StoreRecord)) as cursor:
        return cursor.execute(LIST_STORES).fetchall()


def require_store(connection: psycopg.Connection[Any], public_id: str) -> None:
    """Make sure that there is this store: of one that is not there, lists would be empty and say nothing of it.

    Raises:
        InvalidCommand: there is none.
    """
    if connection.execute(FIND_STORE, {"public_id": public_id}).fetchone() is None:
        raise no_store(public_id)


def no_store(public_id: str) -> InvalidCommand:
    """Return the error for a store that is not there."""
    return InvalidCommand(f"there is no store {public_id}; `creditlane stores list` shows them", field="store")
