"""Stores: tenants that see only what is their own. Made by an operator, never over HTTP."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

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

LIST_STORES = f"select {_COLUMNS} from stores order by stores.store_id"  # noqa: S608


class StoreRecord(BaseModel):
    """A store."""

    model_config = ConfigDict(frozen=True)

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
