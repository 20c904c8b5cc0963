"""The generated pages are what the code says, and every item of the config has an example that is good."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from commands.check import check
from schemas.config import Config
from schemas.metric_tables import METRIC_SCHEMAS
from scripts.write_docs import ALERT_COLUMNS, COLUMNS, DOCS, EXAMPLES, PAGES, structs_in, written_fields
from sinks.alert_tables import ALERT_SCHEMA, DELIVERY_SCHEMA
from sinks.tables import verdict_schema

BLOCKS = {field.encode_name: field for field in msgspec.structs.fields(Config)}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), f"docs/{name} is stale: run `make docs`"


def keys_in(tree: Any) -> set[str]:
    """All keys of a tree, at whatever depth."""
    if not isinstance(tree, dict):
        return set()
    return set(tree).union(*(keys_in(value) for value in tree.values()))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_key_of_a_block_stands_in_its_example(block: str) -> None:
    file = EXAMPLES / f"{block}.yaml"
    assert file.exists(), f"the block {block} needs an example: docs/config_examples/{block}.yaml"
    shown = keys_in(yaml.safe_load(file.read_text())[block])
    for kind in structs_in(BLOCKS[block].type):
        # The names of events stand beside "strict" in the file, not below "names".
        wanted = {field.encode_name for field in written_fields(kind)} - {"names"}
        assert wanted <= shown, f"{file.name} lacks {sorted(wanted - shown)}"


def test_no_example_is_of_a_block_that_is_gone() -> None:
    assert {file.stem for file in EXAMPLES.iterdir()} == BLOCKS.keys()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_is_good(tmp_path: Path, example: Path) -> None:
    (tmp_path / example.name).write_text(example.read_text())
    # Lists and secrets that an example names are not part of it.
    for named in re.findall(r"file: (lists/\S+\.csv)", example.read_text()):
        (tmp_path / named).parent.mkdir(exist_ok=True)
        (tmp_path / named).write_text("value,reason,source,expires\n")
    done = CliRunner().invoke(check, ["--config", str(tmp_path)], catch_exceptions=False)
    assert done.output.splitlines()[-1].startswith("good: ")


def test_every_column_is_described() -> None:
    columns = {name for schema in METRIC_SCHEMAS.values() for name in schema.names}
    columns |= set(verdict_schema(["<feature>"], ["<model>"]).names)
    assert columns <= COLUMNS.keys(), (
        f"scripts/write_docs.py does not describe {sorted(columns - COLUMNS.keys())}"
    )
    assert {*ALERT_SCHEMA.names, *DELIVERY_SCHEMA.names} == ALERT_COLUMNS.keys()
