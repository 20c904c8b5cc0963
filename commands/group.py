"""The commands of ``woolwatch``, and how they end.

Exit codes: 0 done; 1 the answer is no; 2 wrong use or config; 3 a component is unreachable or failed, or data was lost;
130 after Ctrl-C (but a worker, which is ended that way, has done what it should).
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from commands.check import check
from commands.compact import compact
from commands.demo import demo
from commands.expire import expire
from commands.interrupts import EXIT_CODE, end_at_once, raise_in_main_thread
from commands.load import load
from commands.progress import errors
from commands.pseudonym import pseudonym
from commands.reconcile import reconcile
from commands.replay import replay
from commands.sightings import sightings
from commands.simulate import simulate
from commands.worker import worker
from schemas.errors import WoolwatchError
from streams.kernel_cache import use_kernel_cache

COMMANDS = (demo, simulate, worker, load, replay, check, reconcile, compact, expire, sightings, pseudonym)


class _Group(click.Group):
    """Commands that end after Ctrl-C as shells expect it, not with click's 1, which says that the answer is no."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; Ctrl-C is an exception to it, for it may have files to tidy up."""
        try:
            raise_in_main_thread()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            end_at_once()
            errors.print("ended by SIGINT", markup=False)
            ctx.exit(EXIT_CODE)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="woolwatch")
def cli() -> None:
    """Watch campaigns for wool parties (羊毛党), and count what is left without them.

    \b
    Try:  woolwatch demo
    """


for command in COMMANDS:
    cli.add_command(command)


def run() -> None:
    """Run the command; our own errors end in one plain sentence and their exit code."""
    use_kernel_cache()
    try:
        cli(standalone_mode=True)
    except WoolwatchError as error:
        errors.print(str(error), markup=False)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - Python would exit with 1, which says that the answer is no
        traceback.print_exc()
        sys.exit(WoolwatchError.exit_code)
