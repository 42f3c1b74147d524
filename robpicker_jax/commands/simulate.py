"""`simulate`: make a simulated data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, parse_configured, progress
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.config import Config
    from robpicker_jax.simulation import Placement

_DESCRIPTION = """\
Make a simulated data set, DIR/{train,meta,val,test}: tomograms, annotations with angles, and label maps of the true
shapes. The train split's annotations carry the label noise that the configuration asks for; the truth lies beside.

Particles are placed at random (data.species.N.copies of each species in each tomogram), or, with --at, at the
positions and angles of annotation files. The same command again completes what was interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, simulate what is missing, report."""
    options, config = parse_configured(_parser(), list(arguments or ()))
    # After parsing, so that --help and bad arguments answer at once.
    from robpicker_jax.simulation import DatasetRecipe, is_finished, simulate_dataset

    placements = tuple(_placement(text) for text in options.at)
    recipe = DatasetRecipe(config.data.species, config.simulation, config.label_noise, placements)
    if is_finished(recipe, options.out):
        say(f"{options.out}: the data set is complete; nothing to do")
        return 0
    with progress("simulate", recipe.count()) as bar:
        manifest = simulate_dataset(recipe, options.out, bar)
    _report(config, list(manifest["tomograms"].values()))
    say(f"data set in {options.out}")
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("simulate", _DESCRIPTION)
    result.add_argument("--out", metavar="DIR", required=True, help="folder of the data set")
    result.add_argument(
        "--at",
        metavar="SPLIT=FILE[#TOMOGRAM]",
        action="append",
        default=[],
        help="one tomogram of that split with its particles at the positions and angles of an annotation file, instead "
        "of random ones; #TOMOGRAM picks one where the file lists several; may be repeated",
    )
    return result


def _placement(text: str) -> Placement:
    from robpicker_jax.datasets import SPLITS
    from robpicker_jax.simulation import Placement

    split, separator, rest = text.partition("=")
    if not separator or split not in SPLITS:
        raise InputError("must read SPLIT=FILE", where=f"--at {text}", fix=f"SPLIT is one of {', '.join(SPLITS)}")
    path, _, tomogram = rest.partition("#") if not Path(rest).exists() else (rest, "", "")
    return Placement(split, Path(path), tomogram or None)


def _report(config: Config, tomograms: Sequence[Mapping[str, Any]]) -> None:
    """Print how many particles of each species the splits have."""
    from rich.table import Table

    from robpicker_jax.datasets import SPLITS
    from robpicker_jax.molecules import get_phantom

    table = Table("label", "species", "kDa", *SPLITS)
    for label, species in enumerate(config.data.species, start=1):
        weight = species.molecular_weight_kda
        if species.phantom is not None:
            weight = get_phantom(species.phantom).molecular_weight_kda
        counts = [
            str(sum(entry["particles"][species.name] for entry in tomograms if entry["split"] == split))
            for split in SPLITS
        ]
        table.add_row(str(label), species.name, "" if weight is None else f"{weight:g}", *counts)
    console.print(table)
