"""`creditlane stores create|list`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel

from ..producer.operations.stores import StoreRecord, create_store, list_stores
from ..schemas.settings import load_operator_settings
from .ledger_connection import ledger_connection
from .output import print_json, print_line, print_table

stores_app: typer.Typer = typer.Typer(
    name="stores", no_args_is_help=True, help="Make and list stores, each of which sees only what is its own."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class StoreList(BaseModel):
    """What `stores list --json` prints."""

    stores: list[StoreRecord]


@stores_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    as_json: AsJson = False,
) -> None:
    """Make a store and print its id.

    Example:  creditlane keys create --store "$(creditlane stores create shop)"
    """
    with ledger_connection(load_operator_settings()) as connection:
        store = create_store(connection, name)
    if as_json:
        print_json(store)
    else:
        print_line(store.store_id)


@stores_app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the stores, oldest first.

    Example:  creditlane stores list --json | jq -r '.stores[].store_id'
    """
    with ledger_connection(load_operator_settings()) as connection:
        found = list_stores(connection)
    if as_json:
        print_json(StoreList(stores=found))
        return
    rows = [(store.store_id, store.name, f"{store.created_at:%F %T}") for store in found]
    print_table(["store", "name", "created"], rows, title="Stores")
