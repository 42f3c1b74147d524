"""`segment`: class maps of tomograms, by a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.commands.applying import apply_parser, plan, prepared, streamed
from robpicker_jax.commands.cli import console, progress

_DESCRIPTION = """\
Write the class map of each tomogram, DIR/{name}_classes.mrc (0 background, else the class label), and the probability
of that class, DIR/{name}_probability.mrc, by the best model of a training run. Tomograms need no annotations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = apply_parser("segment", _DESCRIPTION)
    parser.add_argument(
        "--scores",
        action="store_true",
        help="also write the probability of every class, DIR/{name}_score_{label}.mrc; all are held in memory",
    )
    options, picker, tomograms = prepared(parser, list(arguments or ()))
    from robpicker_jax.volumes import write_mrc

    out: Path = options.out
    console.print(plan(picker, tomograms, keep_scores=options.scores), highlight=False, soft_wrap=True)
    with progress("segmenting", sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)) as bar:
        for tomogram in streamed(picker, tomograms):
            result = picker.segment(tomogram, bar.advance, keep_scores=options.scores)
            size = tomogram.voxel_size_angstrom
            classes = out / f"{tomogram.name}_classes.mrc"
            write_mrc(classes, result.classes, size)
            write_mrc(out / f"{tomogram.name}_probability.mrc", result.probability, size)
            if result.scores is not None:
                for label in range(result.scores.shape[-1]):
                    write_mrc(out / f"{tomogram.name}_score_{label}.mrc", result.scores[..., label], size)
            console.print(f"{classes}", highlight=False, soft_wrap=True)
    return 0
