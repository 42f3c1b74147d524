"""`segment`: class maps of tomograms, by a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.applying import apply_parser, prepared
from robpicker_jax.cli import console, progress, run

_DESCRIPTION = """\
Write the class map of each tomogram, DIR/{name}_classes.mrc (0 background, else the class label), and the probability
of that class, DIR/{name}_probability.mrc, by the best model of a training run. Tomograms need no annotations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, picker, tomograms = prepared(apply_parser("segment", _DESCRIPTION), list(arguments or ()))
    from robpicker_jax.volumes import write_mrc

    with progress("segmenting", sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)) as bar:
        for tomogram in tomograms:
            loaded = tomogram.load()
            result = picker.segment(loaded.density, bar.advance)
            out: Path = options.out
            classes = out / f"{loaded.name}_classes.mrc"
            write_mrc(classes, result.classes, loaded.voxel_size_angstrom)
            write_mrc(out / f"{loaded.name}_probability.mrc", result.probability, loaded.voxel_size_angstrom)
            console.print(f"{classes}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run(main)
