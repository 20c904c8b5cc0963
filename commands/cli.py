"""The ``woolwatch`` command.

Exit codes: 0 done; 1 the answer is no; 2 wrong use or config; 3 a component is unreachable or failed, or data was lost.
"""

from __future__ import annotations

import sys
import traceback

import click

from commands.check import check
from commands.demo import demo
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

COMMANDS = (demo, simulate, worker, load, replay, check, reconcile, sightings, pseudonym)


@click.group(
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


def main() -> None:
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
