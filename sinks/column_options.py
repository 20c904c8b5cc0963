"""How the columns of verdicts and alerts are encoded in Parquet, in small files and in those that compaction makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Ids and floats hardly repeat: a dictionary of them costs time and saves nothing.
_WITHOUT_DICTIONARY = frozenset(
    {"event_id", "ts", "offset", "user", "device", "ip", "score", "evidence", "sealed"}
)
_WITH_STATISTICS = frozenset(
    {"event_id", "event", "ts", "offset", "user", "device", "ip", "channel", "campaign", "score", "level"}
)


def column_options(names: Sequence[str]) -> dict[str, Any]:
    """Options of ``pyarrow.parquet`` for a file with these columns: which get a dictionary, which statistics."""
    return {
        "use_dictionary": [
            name for name in names if name not in _WITHOUT_DICTIONARY and not name.startswith("m_")
        ],
        "write_statistics": [name for name in names if name in _WITH_STATISTICS],
    }
