"""`segment`: class maps of tomograms, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, checked_tomograms, parse, resident_bytes, say_plan, streamed
from robpicker_jax.commands.cli import ArgumentParser, console, progress

if TYPE_CHECKING:
    import numpy as np

    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.picking.inference import Segmentation

_DESCRIPTION = """\
Write the class map of each tomogram, DIR/{name}_classes.mrc (0 background, else the class label), and the probability
of that class, DIR/{name}_probability.mrc, by the best model of a training run. Tomograms need no annotations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.picking.picker import model_picker

    picker = model_picker(options.workdir, overrides)
    queue = checked_tomograms(options, picker)
    bounds = [
        picker.memory(queued.shape_zyx, keep_scores=options.scores, resident_bytes=resident)
        for queued, resident in zip(queue, resident_bytes(queue), strict=True)
    ]
    say_plan(picker, queue, bounds, whole=options.scores)
    with progress("segmenting", sum(picker.tiles(queued.shape_zyx) for queued in queue)) as bar:
        for item, tomogram in zip(queue, streamed(picker, queue), strict=True):
            result = picker.segment(tomogram, bar.advance, keep_scores=options.scores)
            classes = _write(options.out, item, result)
            console.print(f"{classes}", highlight=False, soft_wrap=True)
    return 0


def _parser() -> ArgumentParser:
    result = apply_parser("segment", _DESCRIPTION)
    result.add_argument(
        "--scores",
        action="store_true",
        help="also write the probability of every class, DIR/{name}_score_{label}.mrc; all are held in memory",
    )
    return result


def _write(out: Path, item: Queued, result: Segmentation) -> Path:
    """Write the maps of one tomogram, on the grid of its file and placed as it is; the path of its class map."""
    from robpicker_jax.volumes import write_mrc

    name, rescaled = item.tomogram.name, item.rescaled

    def write(path: Path, found: np.ndarray) -> None:
        stored = found if rescaled is None else rescaled.onto_source(found)
        write_mrc(path, stored, item.voxel_size_angstrom, origin_angstrom=item.reader.origin_angstrom)

    classes = out / f"{name}_classes.mrc"
    write(classes, result.classes)
    write(out / f"{name}_probability.mrc", result.probability)
    if result.scores is not None:
        for label in range(result.scores.shape[-1]):
            write(out / f"{name}_score_{label}.mrc", result.scores[..., label])
    return classes
