"""Where the ``woolwatch`` command begins. Loads next to nothing itself, so that Ctrl-C finds it ready at once."""

from __future__ import annotations

from commands.interrupts import end_at_once


def main() -> None:
    """Run the command; see :mod:`commands.group`."""
    end_at_once()
    from commands.group import run

    run()
