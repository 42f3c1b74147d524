"""`targets`: write the label map {name}_target.mrc of every annotated tomogram of a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, split_overrides
from robpicker_jax.system.errors import InputError

if TYPE_CHECKING:
    from robpicker_jax.config import DataConfig

_DESCRIPTION = """\
Write label maps: for every annotated tomogram of a data set, DIR/{train,meta,val,test}/{name}_target.mrc beside it,
0 background, else the class label. The training split takes data.train_labels (spheres or shapes), the other splits
data.meta_labels. Where particles touch, a voxel goes to the nearest centre. Maps that exist are kept.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write the maps that are missing, report."""
    rest, overrides = split_overrides(list(arguments or ()))
    options = _parser().parse_args(rest)
    # After parsing, so that --help and bad arguments answer at once.
    from robpicker_jax.config import load_config
    from robpicker_jax.labels.target_maps import write_targets

    if options.data is not None:  # before the configuration is checked: with a data set, nothing needs to be simulated
        overrides.append(f"data.dir={json.dumps(options.data)}")
    config = load_config(options.config, overrides)
    if config.data.dir is None:
        raise InputError("no data set", fix="give --data DIR")
    data, folder = _with_masks(config.data, options.mask), config.data.dir
    written = write_targets(data, folder, labels=options.labels, lists=options.lists, overwrite=options.overwrite)
    if not written:
        console.print("every annotated tomogram has its label map; --overwrite makes them again", highlight=False)
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("targets", _DESCRIPTION, ("data",))
    result.add_argument("--data", metavar="DIR", help="data set; default: data.dir of the configuration")
    result.add_argument("--labels", choices=["sphere", "shape"], help="kind of labels, for all splits")
    result.add_argument(
        "--mask",
        metavar="SPECIES=FILE",
        action="append",
        default=[],
        help="mask of a species for shape labels, such as mask.mrc of its average; repeat; short for data.species.N.mask",
    )
    result.add_argument(
        "--lists",
        metavar="DIR",
        help="take the particles from the lists in this folder, such as the ones with orientations in DIR/lists of an "
        "averaging, and draw the tomograms that have one",
    )
    result.add_argument("--overwrite", action="store_true", help="write maps that exist already anew")
    return result


def _with_masks(data: DataConfig, texts: Sequence[str]) -> DataConfig:
    """The section with the masks that the command line names."""
    from dataclasses import replace

    species = list(data.species)
    names = [entry.name for entry in species]
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in names:
            raise InputError(f"{text!r} is not SPECIES=FILE", where="--mask", fix=f"species: {', '.join(names)}")
        if not Path(path).is_file():
            raise InputError("no such file", where=path)
        species[names.index(name)] = replace(species[names.index(name)], mask=path)
    return replace(data, species=tuple(species))
