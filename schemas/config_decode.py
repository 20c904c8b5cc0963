"""From the tree of a block to its Structs, field by field: every wrong field is told, not only the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import msgspec

from schemas.config_blocks import MAX_NAME, Block
from schemas.config_findings import Findings, one_of, show
from schemas.durations import EXPECTED as EXPECTED_DURATION
from schemas.durations import parse_duration

BlockType = TypeVar("BlockType", bound=Block)

_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\[(\d+)\]")
_CODE = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")


def mapping_at(tree: object, path: str, findings: Findings) -> Mapping[str, object]:
    """The tree as a mapping; nothing at all counts as an empty one."""
    if tree is None:
        return {}
    if isinstance(tree, dict):
        return {key: value for key, value in tree.items() if isinstance(key, str)}
    findings.refuse(path, found=show(tree), expected="a mapping")
    return {}


def check_codes(names: Mapping[str, object], path: str, findings: Findings) -> None:
    """Refuse names that could not be columns and reason codes everywhere: BI tools ignore their case."""
    seen: dict[str, str] = {}
    for name in names:
        if not _CODE.fullmatch(name):
            findings.refuse(
                path,
                found=f"the name {show(name)}",
                expected=f"letters, digits and _, no digit first, at most {MAX_NAME}",
            )
        elif (other := seen.setdefault(name.casefold(), name)) != name:
            findings.refuse(
                f"{path}.{name}", found=f"{other} and {name}", expected="names that differ in more than case"
            )


def decode_block(tree: object, of: type[BlockType], path: str, findings: Findings) -> BlockType | None:
    """Decode one mapping; None when any of it is wrong, which is then among the findings."""
    if not isinstance(tree, dict):
        findings.refuse(path, found=show(tree), expected="a mapping")
        return None
    written = (field for field in msgspec.structs.fields(of) if field.name not in of.FILLED_IN)
    fields = {field.encode_name: field for field in written}
    tag_field = of.__struct_config__.tag_field
    before = len(findings.problems)
    values: dict[str, Any] = {}
    for key, value in mapping_at(tree, path, findings).items():
        if key in fields:
            field = fields[key]
            if value is not None or field.required:
                values[field.name] = _decode_field(value, field, f"{path}.{key}", findings)
        elif key != tag_field:
            findings.refuse(f"{path}.{key}", found=f"the key {show(key)}", expected=one_of(fields, found=key))
    for key, field in fields.items():
        if field.required and key not in tree:
            findings.refuse(f"{path}.{key}", found="nothing", expected=description_of(field.type))
    return of(**values) if len(findings.problems) == before else None


def _decode_field(value: object, field: msgspec.structs.FieldInfo, path: str, findings: Findings) -> object:
    if field.name.endswith("_ms"):
        return decode_duration(value, path, findings)
    try:
        return msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        inside = place[1] if place else ""
        for step in _STEP.findall(inside):
            value = value[int(step)] if isinstance(value, list) else value
        findings.refuse(path + inside, found=show(value), expected=description_of(field.type))
        return None


def decode_duration(value: object, path: str, findings: Findings) -> int:
    """Milliseconds of a written duration; 0 when it is none, which is then among the findings."""
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError:
        findings.refuse(path, found=show(value), expected=EXPECTED_DURATION)
        return 0


def description_of(written_type: Any) -> str:  # noqa: ANN401 - a type expression has no better type
    """What is expected there: the description of the type, or of the first of its parts that has one."""
    for meta in getattr(written_type, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    return next((text for part in get_args(written_type) if (text := description_of(part))), "")
