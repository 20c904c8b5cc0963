"""Reading the config folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.config import Config
from schemas.config_yaml import MAX_FILE_BYTES
from schemas.errors import ConfigError
from streams.config_files import read_config, read_config_folder


def test_all_yaml_files_of_the_folder_make_one_config(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lateness: 2h")
    (tmp_path / "b.yml").write_text("dau: {by: [channel]}")
    (tmp_path / ".hidden.yaml").write_text("junk: [")
    (tmp_path / "notes.txt").write_text("junk: [")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "c.yaml").write_text("junk: [")
    config, notices = read_config(tmp_path)
    assert (config.lateness_ms, config.dau.by) == (7_200_000, ("channel",))
    assert notices == []


def test_an_empty_folder_is_a_config_of_defaults_and_says_so(tmp_path: Path) -> None:
    config, notices = read_config(tmp_path)
    assert config == Config()
    assert "no YAML files" in notices[0].message


def test_a_list_that_is_missing_is_noticed_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    text = "lists: {a: {kind: grey, entity: ip, file: a.csv}, b: {kind: grey, entity: ip, file: b.csv}}"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "a.csv").write_text("value,reason,source,expires\n")
    _, notices = read_config(tmp_path)
    assert [notice.path for notice in notices if "not exist" in notice.message] == ["$.lists.b.file"]


def test_no_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        read_config(tmp_path / "nowhere")
    (tmp_path / "file.yaml").write_text("")
    with pytest.raises(ConfigError, match="expected a folder"):
        read_config(tmp_path / "file.yaml")


def test_what_only_looks_like_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path)
    assert refused.value.file == "a.yaml"


def test_a_giant_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1000 * MAX_FILE_BYTES)
    with pytest.raises(ConfigError, match="1 MiB"):
        read_config(tmp_path)


def test_errors_name_the_file_in_which_they_are(tmp_path: Path) -> None:
    (tmp_path / "detectors.yaml").write_text("rules: {r: {when: dwell_ms < 5, weight: 7}}")
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path)
    assert str(refused.value) == "detectors.yaml: $.rules.r.weight: found 7; expected a number from 0 to 1"


LISTS = (
    "lists: {a: {kind: grey, entity: ip, file: lists/a.csv}, b: {kind: black, entity: user_id, file: b.csv}}"
)


def test_the_hash_covers_what_is_on_the_lists(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(LISTS)
    (tmp_path / "lists").mkdir()
    hashes = []
    for content in (None, "value\n10.0.0.1\n", "value\n10.0.0.2\n", "value\n10.0.0.1\n"):
        if content is not None:
            (tmp_path / "lists" / "a.csv").write_text(content)
        read = read_config_folder(tmp_path)
        hashes.append(read.config.hash)
        assert [read.lists[digest].decode() for digest in read.lists] == (
            [] if content is None else [content]
        )
    assert hashes[1] == hashes[3]
    assert len(set(hashes)) == 3


def test_every_bad_row_of_every_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(LISTS)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.csv").write_text("value\n10.0.0.1\n10.0.0.1/8\nx\n")
    (tmp_path / "b.csv").write_text("value,expires\nu1,never\n")
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path)
    assert [(problem.file, problem.path) for problem in refused.value.problems] == [
        ("lists/a.csv", "line 3, column value"),
        ("lists/a.csv", "line 4, column value"),
        ("b.csv", "line 2, column expires"),
    ]


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    (folder / "lists").mkdir(parents=True)
    (folder / "a.yaml").write_text(LISTS)
    (folder / "real.csv").write_text("value\n10.0.0.1\n")
    link = folder / "lists" / "a.csv"
    link.symlink_to(folder / "real.csv")
    assert read_config(folder)[0].lists["a"].digest
    (tmp_path / "secret").write_text("value\n10.0.0.1\n")
    for target in (tmp_path / "secret", link):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(ConfigError, match=r"lists\.a\.file: found lists/a\.csv, a link"):
            read_config(folder)


def test_a_digest_is_nothing_that_one_writes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lists: {a: {kind: grey, entity: ip, file: a.csv, digest: x}}")
    with pytest.raises(ConfigError, match="expected one of kind, entity, file, weight"):
        read_config(tmp_path)
