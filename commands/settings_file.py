"""The file that ``--settings`` names: YAML, each setting under its name, the same for all commands."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from schemas.config_decode import description_of
from schemas.config_findings import Findings, show
from schemas.config_yaml import load_blocks
from schemas.errors import ConfigError, ConfigProblem
from streams.settings import ENVIRONMENT_PREFIX, Settings, read_setting_file

_NOT_IN_FILES = ("topics",)
"""Topic names are the config's."""
_AS_WRITTEN: dict[str, Any] = {"wait": float | Literal["forever"], "from": str | int}
"""Types of what is written otherwise than it is kept."""
_SECRETS = ("kafka_password", "redis_password", "key")

FIELDS = {
    field.encode_name: field for field in msgspec.structs.fields(Settings) if field.name not in _NOT_IN_FILES
}
"""All settings by the name that they have in a file."""


def read_settings_file(file: str) -> dict[str, str | int | float]:
    """The settings of a file, by name.

    Raises
    ------
    ConfigError
        The file can not be read, or with every setting that is unknown or of the wrong type.
    """
    findings, name = Findings(), Path(file).name
    trees = load_blocks({name: read_setting_file(file, "--settings")}, [*FIELDS, *_SECRETS], findings)
    found = {key: _value(key, tree, findings) for key, tree in trees.items()}
    if findings.problems:
        raise ConfigError.of_all([ConfigProblem(file, *problem[1:]) for problem in findings.problems])
    return found


def _value(key: str, tree: object, findings: Findings) -> Any:
    if key in _SECRETS:
        place = f"{key}_file, or {ENVIRONMENT_PREFIX}{key.upper()} in the environment"
        findings.refuse(f"$.{key}", found="a secret in the open", expected=place)
        return None
    # YAML takes 2026-01-31 for a date.
    written = tree.isoformat() if isinstance(tree, date) else tree
    try:
        return msgspec.convert(written, _AS_WRITTEN.get(key, FIELDS[key].type))
    except msgspec.ValidationError:
        findings.refuse(f"$.{key}", found=show(tree), expected=description_of(FIELDS[key].type))
        return None


def _take_up(context: click.Context, _: click.Parameter, file: str | None) -> None:
    """Make the file's settings the defaults, under flags and environment."""
    if file is None:
        return
    found = read_settings_file(file)
    options = {_key(option): option for option in context.command.params if option.envvar is not None}
    context.default_map = {
        str(options[key].name): [value] if options[key].multiple else value
        for key, value in found.items()
        if key in options
    }


def _key(option: click.Parameter) -> str:
    return str(option.envvar).removeprefix(ENVIRONMENT_PREFIX).lower()


SETTINGS = click.option(
    "--settings",
    envvar=f"{ENVIRONMENT_PREFIX}SETTINGS",
    show_envvar=True,
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_take_up,
    help="File (YAML) with any of these settings; flags and environment come before it.",
)
