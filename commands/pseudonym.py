"""``woolwatch pseudonym``: under which name the tables keep somebody."""

from __future__ import annotations

import click

from commands.options import KEY_FILE
from commands.settings_file import SETTINGS
from streams.settings import load_key


@click.command()
@click.argument("kind", type=click.Choice(["user", "device", "ip"]))
@click.argument("value")
@KEY_FILE
@SETTINGS
def pseudonym(kind: str, value: str, key_file: str | None) -> None:
    """Show the pseudonym under which the tables and Redis keep a user, a device or an address.

    \b
    woolwatch pseudonym user u0042
    """
    from schemas.pseudonyms import Pseudonyms

    pseudonyms = Pseudonyms(load_key(key_file))
    try:
        click.echo(pseudonyms.pseudonym(kind, value))
    except ValueError as error:
        raise click.BadParameter("expected an IPv4 or IPv6 address", param_hint="VALUE") from error
