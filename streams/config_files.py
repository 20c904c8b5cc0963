"""Reads the risk team's folder of YAML files."""

from __future__ import annotations

from pathlib import Path

from schemas.config import Config, ConfigNotice, parse_config
from schemas.config_yaml import MAX_FILE_BYTES
from schemas.errors import ConfigError

SUFFIXES = (".yaml", ".yml")


def read_config(folder: Path) -> tuple[Config, list[ConfigNotice]]:
    """Read and check the YAML files that stand directly in a folder; hidden ones are left alone.

    Returns
    -------
    config, notices
        The frozen config, and what is worth knowing though it refuses nothing.

    Raises
    ------
    ConfigError
        If the folder or a file cannot be read, or with every problem of the config.
    """
    documents = {file.name: _read(file) for file in _files(folder)}
    config, notices = parse_config(documents)
    if not documents:
        notices.append(ConfigNotice("", "$", f"{folder} has no YAML files, so everything is as by default"))
    for name, source in config.lists.items():
        if not (folder / source.file).is_file():
            notices.append(ConfigNotice("", f"$.lists.{name}.file", f"{source.file} does not exist"))
    return config, notices


def _files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        found = f"{folder} ({error.strerror})"
        raise ConfigError(file="", path="$", found=found, expected="a folder of YAML files") from error
    return [file for file in entries if file.suffix in SUFFIXES and not file.name.startswith(".")]


def _read(file: Path) -> bytes:
    """At most one byte more than is allowed, so that a device or a giant in the folder does no harm."""
    try:
        if not file.is_file():
            raise ConfigError(file=file.name, path="$", found="something that is no file", expected="a file")
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            file=file.name, path="$", found=f"{error.strerror}", expected="a readable file"
        ) from error
