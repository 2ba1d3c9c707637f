"""`creditlane keys create|list|revoke`."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel

from ..producer.operations.api_keys import ApiKey, create_key, key_id_of, list_keys, revoke_key
from ..schemas.settings import load_operator_settings
from .ledger_connection import ledger_connection
from .output import print_json, print_line, print_table

keys_app: typer.Typer = typer.Typer(
    name="keys", no_args_is_help=True, help="Make, list and revoke the API keys of the stores."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class NewKey(BaseModel):
    """What `keys create --json` prints."""

    key_id: str
    store_id: str
    name: str
    #: The only time that it is seen.
    key: str


class KeyList(BaseModel):
    """What `keys list --json` prints."""

    keys: list[ApiKey]


@keys_app.command("create")
def create_command(
    store: Annotated[str, typer.Option("--store", help="The store that the key opens, as `stores list` shows it.")],
    name: Annotated[str, typer.Option("--name", help="What the key is for; people read it.")] = "unnamed",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once: only its hash is stored.

    Example:  creditlane keys create --store store_default --name billing
    """
    with ledger_connection(load_operator_settings()) as connection:
        key = create_key(connection, store, name)
    if as_json:
        print_json(NewKey(key_id=key_id_of(key) or "", store_id=store, name=name, key=key))
    else:
        print_line(key)


@keys_app.command("list")
def list_command(
    store: Annotated[str | None, typer.Option("--store", help="Only the keys of this store.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the keys by their ids, oldest first. What a key is nobody can see.

    Example:  creditlane keys list --store store_default
    """
    with ledger_connection(load_operator_settings()) as connection:
        found = list_keys(connection, store)
    if as_json:
        print_json(KeyList(keys=found))
        return
    if not found:
        print_line("0 keys")
        return
    rows = [
        (
            key.key_id,
            key.store_id,
            key.name,
            f"{key.created_at:%F %T}",
            f"{key.revoked_at:%F %T}" if key.revoked_at else None,
        )
        for key in found
    ]
    print_table(["key", "store", "name", "created", "revoked"], rows, title="API keys")


@keys_app.command("revoke")
def revoke_command(key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")]) -> None:
    """Make a key worthless, for ever. Effective at once: every request is checked against the database.

    Example:  creditlane keys revoke 5f1c0a9be27d4c33
    """
    with ledger_connection(load_operator_settings()) as connection:
        revoke_key(connection, key_id)
    print_line(f"Key {key_id} is revoked")
