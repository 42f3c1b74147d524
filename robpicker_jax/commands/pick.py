"""`pick`: particles of tomograms, by a trained run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, plan, prepared, streamed
from robpicker_jax.commands.cli import console, progress

if TYPE_CHECKING:
    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.picking.pick_files import Place

_DESCRIPTION = """\
Pick the particles of each tomogram by the best model of a training run: DIR/{name}.{xml,star,csv}, or with --together
all in DIR/picks.{xml,star,csv}. Tomograms need no annotations. docs/formats.md lists the formats and their options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = apply_parser("pick", _DESCRIPTION)
    parser.add_argument(
        "--format", metavar="NAME", action="append", help="annotation format, may be repeated; default: xml, star, csv"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="one file for all tomograms; formats that only number them get picks_tomograms.doc beside it",
    )
    parser.add_argument(
        "--format-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="option of writing, such as binning=4 for RELION's unbinned pixels; repeat",
    )
    parser.add_argument(
        "--name-pattern",
        metavar="REGEX",
        help="what of a volume's name is the tomogram's in the lists, such as 'rec_(.*)'; default: all",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        type=float,
        help="smallest scores at which each class had this precision on the meta (and validation) tomograms",
    )
    options, picker, tomograms = prepared(parser, list(arguments or ()))
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.picking import calibration
    from robpicker_jax.picking.pick_files import PickFiles
    from robpicker_jax.picking.picker import PICK_FORMATS

    names = [species.name for species in picker.config.data.species]
    further = parse_options(options.format_option, "--format-option")
    files = PickFiles(options.out, options.format or PICK_FORMATS, options.together, further)
    places = _places(tomograms, options.name_pattern, picker.config.data.voxel_size_angstrom)
    files.check(list(places.values()))
    if options.precision is not None:
        scores = tuple(calibration.min_scores(options.workdir, names, options.precision))
        picker = replace(picker, min_scores=scores)
        shown = ", ".join(f"{name} {score:.3f}" for name, score in zip(names, scores, strict=True))
        console.print(f"smallest scores for a precision of {options.precision:g}: {shown}", highlight=False)
    console.print(plan(picker, tomograms), highlight=False, soft_wrap=True)
    picked = []
    with progress("picking", sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)) as bar:
        for tomogram in streamed(picker, tomograms):
            picks = picker.pick(tomogram, bar.advance, mask=tomogram.mask)
            place = places[tomogram.files.volume_path]
            picked.append((place, picks))
            written = place.name if options.together else str(files.write(place, picks)[0])
            counts = Counter(picks.labels.tolist())
            found = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(names, start=1))
            console.print(f"{written}: {found}", highlight=False, soft_wrap=True)
    if options.together:
        paths = files.write_together(picked)
        console.print(f"written: {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)
    return 0


def _places(queue: Sequence[Queued], pattern: str | None, configured: float | None) -> dict[Path, Place]:
    """Name, size and voxel size of each tomogram, by its volume."""
    from robpicker_jax.datasets import agreed_voxel_size
    from robpicker_jax.picking.pick_files import Place, listed_name
    from robpicker_jax.system.errors import InputError

    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InputError(f"not a regular expression ({error})", where="--name-pattern") from None
    return {
        queued.tomogram.volume_path: Place(
            listed_name(queued.tomogram.name, compiled),
            queued.shape_zyx,
            agreed_voxel_size([queued.reader], configured),
        )
        for queued in queue
    }
