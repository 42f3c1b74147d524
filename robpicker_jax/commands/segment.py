"""`segment`: class maps of tomograms, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, checked_tomograms, parse, resident_bytes, say_plan, streamed
from robpicker_jax.commands.cli import ArgumentParser, console, progress

if TYPE_CHECKING:
    from robpicker_jax.picking.inference import Segmentation

_DESCRIPTION = """\
Write the class map of each tomogram, DIR/{name}_classes.mrc (0 background, else the class label), and the probability
of that class, DIR/{name}_probability.mrc, by the best model of a training run. Tomograms need no annotations.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.picking.picker import model_picker

    picker = model_picker(options.workdir, overrides)
    rule = NameRule.of(options.name_pattern)
    queue = checked_tomograms(options)
    names = {queued.tomogram: rule.written(queued.tomogram.name) for queued in queue}
    bounds = [
        picker.memory(queued.shape_zyx, keep_scores=options.scores, resident_bytes=resident)
        for queued, resident in zip(queue, resident_bytes(queue), strict=True)
    ]
    say_plan(picker, queue, bounds, whole=options.scores)
    with progress("segmenting", sum(picker.tiles(queued.shape_zyx) for queued in queue)) as bar:
        for tomogram in streamed(picker, queue):
            result = picker.segment(tomogram, bar.advance, keep_scores=options.scores)
            classes = _write(options.out, names[tomogram.files], result, tomogram.voxel_size_angstrom)
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


def _write(out: Path, name: str, result: Segmentation, voxel_size_angstrom: float | None) -> Path:
    """Write the maps of one tomogram; the path of its class map."""
    from robpicker_jax.volumes import write_mrc

    classes = out / f"{name}_classes.mrc"
    write_mrc(classes, result.classes, voxel_size_angstrom)
    write_mrc(out / f"{name}_probability.mrc", result.probability, voxel_size_angstrom)
    if result.scores is not None:
        for label in range(result.scores.shape[-1]):
            write_mrc(out / f"{name}_score_{label}.mrc", result.scores[..., label], voxel_size_angstrom)
    return classes
