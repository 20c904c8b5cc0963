"""Reads the risk team's folder: YAML files, and the CSV files of its lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detectors.lists import check_list
from schemas.config import Config, ConfigNotice, ListSource, parse_config
from schemas.config_yaml import MAX_FILE_BYTES
from schemas.errors import ConfigError, ConfigProblem
from schemas.list_rows import MAX_FILE_BYTES as MAX_LIST_BYTES

SUFFIXES = (".yaml", ".yml")
DIGEST_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ConfigFolder:
    """What was read of a config folder.

    Parameters
    ----------
    config
        Frozen; each list has the digest of its file.
    notices
        What is worth knowing though it refuses nothing.
    lists
        The content of each list's file by its digest.
    """

    config: Config
    notices: list[ConfigNotice]
    lists: Mapping[str, bytes]


def read_config(folder: Path) -> tuple[Config, list[ConfigNotice]]:
    """The config of a folder and its notices; see :func:`read_config_folder`."""
    read = read_config_folder(folder)
    return read.config, read.notices


def read_config_folder(folder: Path) -> ConfigFolder:
    """Read and check the YAML files that stand directly in a folder (hidden ones are left alone), and their lists.

    A list whose file does not exist is empty, and noticed.

    Raises
    ------
    ConfigError
        If the folder or a file cannot be read, or with every problem of the config, rows of lists included.
    """
    documents = {file.name: _read(file, file.name, MAX_FILE_BYTES) for file in yaml_files(folder)}
    config, notices = parse_config(documents)
    if not documents:
        notices.append(ConfigNotice("", "$", f"{folder} has no YAML files, so everything is as by default"))
    lists, contents, problems = dict(config.lists), dict[str, bytes](), list[ConfigProblem]()
    for name, source in config.lists.items():
        if (file := list_file(folder, name, source)) is None:
            notices.append(
                ConfigNotice(
                    "", f"$.lists.{name}.file", f"{source.file} does not exist, so nothing is on the list"
                )
            )
            continue
        content = _read(file, source.file, MAX_LIST_BYTES)
        problems += check_list(content, entity=source.entity, file=source.file)
        digest = hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
        lists[name], contents[digest] = msgspec.structs.replace(source, digest=digest), content
    if problems:
        raise ConfigError.of_all(problems)
    return ConfigFolder(msgspec.structs.replace(config, lists=lists), notices, contents)


def yaml_files(folder: Path) -> list[Path]:
    """The files of a config folder, by name.

    Raises
    ------
    ConfigError
        It can not be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        found = f"{folder} ({error.strerror})"
        raise ConfigError(file="", path="$", found=found, expected="a folder of YAML files") from error
    return [file for file in entries if file.suffix in SUFFIXES and not file.name.startswith(".")]


def list_file(folder: Path, name: str, source: ListSource) -> Path | None:
    """The file of a list, links followed; None when it does not exist.

    Raises
    ------
    ConfigError
        It lies outside the folder.
    """
    try:
        file = (folder / source.file).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        found = f"{source.file}, a link that leads nowhere"
        raise ConfigError(file="", path=f"$.lists.{name}.file", found=found, expected="a file") from error
    if not file.is_relative_to(folder.resolve()):
        raise ConfigError(
            file="",
            path=f"$.lists.{name}.file",
            found=f"{source.file}, a link that leads elsewhere",
            expected="a path inside the config folder",
        )
    return file if file.exists() else None


def _read(file: Path, name: str, most_bytes: int) -> bytes:
    """At most one byte more than is allowed, so that a device or a giant in the folder does no harm."""
    try:
        if not file.is_file():
            raise ConfigError(file=name, path="$", found="something that is no file", expected="a file")
        with file.open("rb") as opened:
            return opened.read(most_bytes + 1)
    except OSError as error:
        raise ConfigError(
            file=name, path="$", found=f"{error.strerror}", expected="a readable file"
        ) from error
