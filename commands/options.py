"""Options that several commands share, and what they make of them: config and settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
import msgspec

from commands.progress import errors
from commands.settings_file import FIELDS, SETTINGS
from schemas.config import Config
from schemas.config_decode import description_of
from streams.settings import EARLIEST, ENVIRONMENT_PREFIX, Settings, parse_start

if TYPE_CHECKING:
    from streams.config_files import ConfigFolder

FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


def setting(flag: str, *names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option of a setting: flag, variable WOOLWATCH_<FLAG> and name in the settings file alike in all commands.

    What is not given follows from the field of :class:`streams.settings.Settings`: default, choices and help.
    """
    key = flag.removeprefix("--").replace("-", "_")
    if field := FIELDS.get(key):
        attributes = {**_of_field(field), **attributes}
    return click.option(flag, *names, envvar=ENVIRONMENT_PREFIX + key.upper(), show_envvar=True, **attributes)


def _of_field(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    description = description_of(field.type)
    shown: dict[str, Any] = {"help": f"{description[0].upper()}{description[1:]}."}
    if field.default is not None:
        shown |= {"default": field.default, "show_default": True}
    written = get_args(field.type)[0]
    if get_origin(written) is Literal:
        shown["type"] = click.Choice(get_args(written))
    return shown


CONFIG = setting("--config", "config_folder", type=click.Path(path_type=Path))
OUT = setting("--out")
STATE = setting("--state")
KEY_FILE = setting("--key-file")

_KAFKA = [setting(f"--{name.replace('_', '-')}") for name in FIELDS if name.startswith(("brokers", "kafka"))]
_REDIS = [setting(f"--{name.replace('_', '-')}") for name in FIELDS if name.startswith("redis")]
_PARTITIONS = setting("--partitions", type=click.IntRange(min=1))
_WAIT = setting("--wait", default="60")


def endpoints(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where Kafka is, how one gets in, and whose topics and groups these are; and ``--settings``."""
    return _with(command, [*_KAFKA, setting("--namespace"), _PARTITIONS, _WAIT, SETTINGS])


def redis_endpoint(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where Redis is and how one gets in."""
    return _with(command, _REDIS)


def _with(command: Callable[..., Any], options: Sequence[Any]) -> Callable[..., Any]:
    """The command with these options, shown in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def config_in(folder: Path | None, tell: Callable[[str], object] | None = None) -> Config:
    """The config of a folder; without a folder the defaults.

    ``tell`` is told what is worth knowing about it; without one it is said on standard error.
    """
    return config_folder_in(folder, tell).config


def config_folder_in(folder: Path | None, tell: Callable[[str], object] | None = None) -> ConfigFolder:
    """As :func:`config_in`, with the contents of the lists."""
    from streams.config_files import ConfigFolder, read_config_folder

    if folder is None:
        return ConfigFolder(Config(), [], {})
    read = read_config_folder(folder)
    for notice in read.notices:
        (tell or _note)(str(notice))
    return read


def _note(notice: str) -> None:
    errors.print(f"note: {notice}", markup=False)


def settings_of(config: Config, *, wait: str, start: str = EARLIEST, **options: Any) -> Settings:
    """Settings from the options of a command."""
    wait_s = None if wait == "forever" else _seconds(wait)
    try:
        start = parse_start(start)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--from") from error
    return Settings(wait_s=wait_s, start=start, **options).with_topics_of(config)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise click.BadParameter("expected seconds, 0 or 'forever'", param_hint="--wait")
    return seconds
