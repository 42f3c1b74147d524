"""`pick`: particles of tomograms, by a trained run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from robpicker_jax.applying import apply_parser, plan, prepared, streamed
from robpicker_jax.cli import console, progress, run

_DESCRIPTION = """\
Pick the particles of each tomogram by the best model of a training run: DIR/{name}.{xml,star,csv}. Tomograms need no
annotations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = apply_parser("pick", _DESCRIPTION)
    parser.add_argument(
        "--format", metavar="NAME", action="append", help="annotation format, may be repeated; default: xml, star, csv"
    )
    parser.add_argument(
        "--precision", metavar="P", type=float, help="keep picks whose class had this precision on the meta tomograms"
    )
    options, picker, tomograms = prepared(parser, list(arguments or ()))
    from robpicker_jax import calibration
    from robpicker_jax.picker import PICK_FORMATS, write_picks

    names = [species.name for species in picker.config.data.species]
    if options.precision is not None:
        scores = tuple(calibration.min_scores(options.workdir, names, options.precision))
        picker = replace(picker, min_scores=scores)
        shown = ", ".join(f"{name} {score:.3f}" for name, score in zip(names, scores, strict=True))
        console.print(f"smallest scores for a precision of {options.precision:g}: {shown}", highlight=False)
    console.print(plan(picker, tomograms), highlight=False, soft_wrap=True)
    with progress("picking", sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)) as bar:
        for tomogram in streamed(picker, tomograms):
            picks = picker.pick(tomogram, bar.advance, mask=tomogram.mask)
            paths = write_picks(
                options.out,
                tomogram.name,
                picks,
                formats=options.format or PICK_FORMATS,
                voxel_size_angstrom=tomogram.voxel_size_angstrom,
                shape_zyx=tomogram.shape_zyx,
            )
            counts = Counter(picks.labels.tolist())
            found = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(names, start=1))
            console.print(f"{paths[0]}: {found}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run(main)
