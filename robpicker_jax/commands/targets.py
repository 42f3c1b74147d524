"""`targets`: write the label map {name}_target.mrc of every annotated tomogram of a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, split_overrides
from robpicker_jax.system.errors import InputError

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
    written = write_targets(config.data, config.data.dir, labels=options.labels, overwrite=options.overwrite)
    if not written:
        console.print("every annotated tomogram has its label map; --overwrite makes them again", highlight=False)
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("targets", _DESCRIPTION, ("data",))
    result.add_argument("--data", metavar="DIR", help="data set; default: data.dir of the configuration")
    result.add_argument("--labels", choices=["sphere", "shape"], help="kind of labels, for all splits")
    result.add_argument("--overwrite", action="store_true", help="write maps that exist already anew")
    return result
