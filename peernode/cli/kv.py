"""kv: everything that can be done with the store under one roof."""

from __future__ import annotations

import click

from .bulk import export_keys, import_keys
from .common import client_command
from .keys import delete_keys, get_key, list_keys, set_key


@click.group("kv", context_settings={"help_option_names": ["-h", "--help"]})
def kv() -> None:
    """The store: put, get, del, ls, and import, export for many keys at once."""


for command in (
    client_command("put")(set_key),
    client_command("get")(get_key),
    client_command("del")(delete_keys),
    client_command("ls")(list_keys),
    import_keys,
    export_keys,
):
    kv.add_command(command)

COMMANDS = {"kv": kv}
