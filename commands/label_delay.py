"""The option ``--label-delay``: when the labels of a recording become known."""

from __future__ import annotations

from typing import Any

import click

from schemas.durations import parse_duration


class Delay(click.ParamType):
    """A duration as the config writes it, or 0; in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what was expected."""
        if isinstance(value, int):
            return value
        try:
            return 0 if value == "0" else parse_duration(str(value))
        except ValueError as error:
            self.fail(f"found {value}, {error}", param, ctx)


LABEL_DELAY = click.option(
    "--label-delay",
    "label_delay_ms",
    type=Delay(),
    default=None,
    help="How long after its event a recorded label becomes known, such as 1d. Without it labels are ignored.",
)
