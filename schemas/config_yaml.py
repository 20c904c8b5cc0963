"""From the bytes of YAML files to one tree per block; nothing is known here of what a block means.

YAML can do far more than a config needs, and most of the rest is a trap: aliases that blow up a kilobyte to a
gigabyte, tags that make objects, a key that silently replaces the same key above it. All of these are refused
by one look over the parser's events, before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import yaml

from schemas.config_findings import Findings, one_of, show

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 16

_PLACEHOLDER = re.compile(
    r"^\s*<[^<>]*>\s*$|\$\{[^}]*\}|\{\{.*\}\}|\b(?:TODO|FIXME|TBD|CHANGE_?ME|REPLACE_?ME)\b"
)
"""What somebody meant to fill in later; a config that still says so, by one of these words or brackets, is refused."""


def load_blocks(
    documents: Mapping[str, bytes], blocks: Collection[str], findings: Findings
) -> dict[str, object]:
    """Gather the top-level blocks of all files; a block may stand in any one of them.

    Parameters
    ----------
    documents
        The bytes of each file by its name.
    blocks
        Names of the blocks there are.
    findings
        Takes what is wrong, and which block stands where.
    """
    trees: dict[str, object] = {}
    for file, raw in sorted(documents.items()):
        for block, tree in _load_document(file, raw, findings).items():
            if block not in blocks:
                findings.refuse(
                    f"$.{block}",
                    file=file,
                    found=f"the block {show(block)}",
                    expected=one_of(blocks, found=block),
                )
            elif block in trees:
                findings.refuse(
                    f"$.{block}",
                    file=file,
                    found=f"a block that {findings.file_of_block[block]} has, too",
                    expected="each block in one file only",
                )
            else:
                findings.file_of_block[block] = file
                trees[block] = tree
    return trees


class _Unreadable(Exception):
    """A file of which nothing can be taken."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def _load_document(file: str, raw: bytes, findings: Findings) -> dict[str, object]:
    try:
        tree = _build(_decode_text(raw), file, findings)
    except _Unreadable as error:
        findings.refuse("$", file=file, found=error.found, expected=error.expected)
        findings.complete = False
        return {}
    _check_scalars(tree, "$", file, findings)
    return {key: value for key, value in tree.items() if isinstance(key, str)}


def _decode_text(raw: bytes) -> str:
    if len(raw) > MAX_FILE_BYTES:
        raise _Unreadable("more than 1 MiB", "a file of at most 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"a byte that is no UTF-8 at {error.start}", "UTF-8") from error


def _build(text: str, file: str, findings: Findings) -> dict[object, object]:
    try:
        if not _EventScan(file, findings).passes(text):
            findings.complete = False
            return {}
        tree = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise _Unreadable(_yaml_found(error), "YAML") from error
    except ValueError as error:  # a date of month 13, an integer of 5,000 digits
        raise _Unreadable(f"a value that YAML cannot read ({error})", "YAML") from error
    if tree is not None and not isinstance(tree, dict):
        raise _Unreadable(show(tree), "a mapping of blocks")
    return tree or {}


def _yaml_found(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{getattr(error, 'problem', None) or 'a character that YAML forbids'}"


def _check_scalars(tree: object, path: str, file: str, findings: Findings) -> None:
    """Refuse keys that YAML reads as something else than text, and text that was left to be filled in."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not isinstance(key, str):
                findings.refuse(
                    path,
                    file=file,
                    found=f"the key {show(key)}, which is no text",
                    expected="a key in quotes",
                )
            else:
                _refuse_placeholder(key, f"{path}.{key}", file, findings)
            _check_scalars(value, f"{path}.{key}", file, findings)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _check_scalars(value, f"{path}[{index}]", file, findings)
    elif isinstance(tree, str):
        _refuse_placeholder(tree, path, file, findings)


def _refuse_placeholder(text: str, path: str, file: str, findings: Findings) -> None:
    if _PLACEHOLDER.search(text):
        findings.refuse(path, file=file, found=f"{show(text)}, a placeholder", expected="what belongs there")


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end was not seen yet."""

    path: str
    keys: set[str] | None
    """Keys so far; None in a list."""
    key: str | None = None
    """The key whose value comes next."""
    index: int = 0
    lines: dict[str, int] = field(default_factory=dict)


class _EventScan:
    """One look over the events of a document, with the path of each."""

    def __init__(self, file: str, findings: Findings) -> None:
        self._file, self._findings = file, findings
        self._open: list[_Open] = []
        self._documents = 0

    def passes(self, text: str) -> bool:
        """Whether the document may be built; refuses each trap, stops at those that hide what follows."""
        before = len(self._findings.problems)
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if not self._take(event):
                break
        return len(self._findings.problems) == before

    def _take(self, event: yaml.Event) -> bool:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            return self._documents == 1 or self._refuse("a second document (---)", "one document a file")
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(f"the alias *{show(event.anchor)}", "the value itself: aliases are not taken")
        if isinstance(event, yaml.ScalarEvent):
            return self._take_tag(event) and self._take_scalar(event)
        if isinstance(event, yaml.CollectionStartEvent):
            return self._take_tag(event) and self._take_start(event)
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._value_ended()
        return True

    def _take_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> bool:
        return event.tag is None or self._refuse(
            f"the tag {show(event.tag)}", "a plain value: tags are not taken"
        )

    def _take_scalar(self, event: yaml.ScalarEvent) -> bool:
        parent = self._open[-1] if self._open else None
        if parent is None or parent.keys is None or parent.key is not None:
            self._value_ended()
            return True
        line = event.start_mark.line + 1 if event.start_mark else 0
        parent.key = event.value
        if event.value in parent.keys:
            self._refuse(
                f"{show(event.value)} on line {parent.lines[event.value]} and again on {line}",
                "each key once",
            )
        parent.keys.add(event.value)
        parent.lines[event.value] = line
        return True

    def _take_start(self, event: yaml.CollectionStartEvent) -> bool:
        if len(self._open) == MAX_DEPTH:
            return self._refuse("deeper nesting", f"at most {MAX_DEPTH} levels")
        if self._open and self._open[-1].keys is not None and self._open[-1].key is None:
            return self._refuse("a mapping or list as a key", "text as a key")
        self._open.append(_Open(self._path(), set() if isinstance(event, yaml.MappingStartEvent) else None))
        return True

    def _value_ended(self) -> None:
        if self._open:
            self._open[-1].key = None
            self._open[-1].index += 1

    def _path(self) -> str:
        if not self._open:
            return "$"
        parent = self._open[-1]
        if parent.keys is None:
            return f"{parent.path}[{parent.index}]"
        return parent.path if parent.key is None else f"{parent.path}.{parent.key}"

    def _refuse(self, found: str, expected: str) -> bool:
        self._findings.refuse(self._path(), file=self._file, found=found, expected=expected)
        return False
