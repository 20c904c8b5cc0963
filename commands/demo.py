"""``woolwatch demo``: a campaign under attack, on this machine alone."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import click

from commands.interrupts import end_at_once
from commands.options import config_in
from commands.progress import errors
from console.interruption import Interrupted, Interruption
from schemas.errors import UnreachableError

_INSTALLED = Path(__file__).with_name("shipped_config")
_CONFIG = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "config"
"""Of a wheel, or of a checkout."""
_OUT = "woolwatch-demo"
_PLAIN_WIDTH = 100


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder for the tables; must not exist yet.  [default: {_OUT}, {_OUT}-2 ... in the current folder]",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write the last page."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the live view, late in the campaign, as SVG.",
)
@click.option("--events", type=click.IntRange(min=1), default=100_000, show_default=True, help="How many.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="In how long.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same campaign."
)
@click.option(
    "--config",
    "config_folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=_CONFIG,
    help="Folder of the config (YAML), with a funnel.  [default: the one that comes with woolwatch]",
)
def demo(
    out: Path | None,
    json_file: Path | None,
    picture: Path | None,
    events: int,
    seconds: float,
    seed: int,
    config_folder: Path,
) -> None:
    """Watch a simulated campaign under attack, with a broker and a Redis of its own. Needs no network.

    \b
    Starts an embedded Kafka, a Redis and the real worker, publishes the campaign, shows its numbers, and at the end
    what was planted against what was caught. Leaves the tables behind, and nothing else. Ended by a signal it leaves
    what is written up to then, and exits with 128 and the signal's number: 130 after Ctrl-C.

    \b
    woolwatch demo
    """
    if sys.platform != "linux":
        raise UnreachableError(
            f"found {sys.platform}; expected Linux, which the demo needs to tidy up after itself"
        )
    end_at_once()  # there is nothing to tidy up yet, and imports may lose an exception
    from rich.console import Console

    from console.demo import Wish, run_demo

    interruption = Interruption()
    try:
        interruption.arm()
        target = _new_folder(out)
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_PLAIN_WIDTH)
        wish = Wish(
            target,
            config_folder.resolve(),
            config_in(config_folder),
            events,
            seconds,
            seed,
            json_file,
            picture,
        )
        run_demo(wish, console, interruption)
        interruption.check()
    except Interrupted as interrupted:
        interruption.disarm()
        errors.print(f"ended by {interrupted}", markup=False)
        sys.exit(interrupted.exit_code)


def _new_folder(out: Path | None) -> Path:
    """Tables of another run stay as they are."""
    if out is None:
        names = itertools.chain([_OUT], (f"{_OUT}-{number}" for number in itertools.count(2)))
        out = next(Path(name) for name in names if not Path(name).exists())
    elif out.exists():
        raise click.BadParameter(f"{out} exists already; expected a new folder", param_hint="--out")
    return out.resolve()
