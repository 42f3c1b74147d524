"""`segment`: class maps of tomograms, by a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, parse, resident_bytes, say_plan
from robpicker_jax.commands.batches import Batch, names_of, tomograms_of
from robpicker_jax.commands.cli import ArgumentParser, progress
from robpicker_jax.system.progress import say

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
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.picker import model_picker

    picker = model_picker(options.workdir, overrides)
    names = names_of(tomograms_of(options, picker), options, "class maps")
    records = Finished(options.out, "segment", {"model": picker.fingerprint, "scores": options.scores})
    batch = Batch(names, records, options, "segmented")
    waiting = batch.waiting(batch.queue(picker))
    outputs = {
        item.tomogram: [options.out / file for file in _files(names[item.tomogram], len(picker.class_names), options)]
        for item in waiting
    }
    batch.check_free(waiting, outputs)
    if waiting:
        bounds = [
            picker.memory(queued.shape_zyx, keep_scores=options.scores, resident_bytes=resident)
            for queued, resident in zip(waiting, resident_bytes(waiting), strict=True)
        ]
        say_plan(picker, waiting, bounds, whole=options.scores)
    items = {item.tomogram: item for item in waiting}
    with progress("segmenting", sum(picker.tiles(item.shape_zyx) for item in waiting)) as bar:
        for tomogram in batch.streamed(picker, waiting, bar.advance):
            result = picker.segment(tomogram, bar.advance, keep_scores=options.scores)
            name = names[tomogram.files]
            records.begin(name, tomogram.files, outputs[tomogram.files])
            written = _write(options.out, name, result, items[tomogram.files])
            records.add(name, tomogram.files, written)
            say(f"{written[0]}")
    batch.say_end(waiting)
    return 0


def _parser() -> ArgumentParser:
    result = apply_parser("segment", _DESCRIPTION, "maps")
    result.add_argument(
        "--scores",
        action="store_true",
        help="also write the probability of every class, DIR/{name}_score_{label}.mrc; all are held in memory",
    )
    return result


def _files(name: str, classes: int, options: argparse.Namespace) -> list[str]:
    """Names of the maps of a tomogram, that of the class map first."""
    scores = [f"{name}_score_{label}.mrc" for label in range(classes + 1)] if options.scores else []
    return [f"{name}_classes.mrc", f"{name}_probability.mrc", *scores]


def _write(out: Path, name: str, result: Segmentation, item: Queued) -> list[Path]:
    """Write the maps of one tomogram, on its file's grid and placed as it is; their paths, that of the class map first."""
    from robpicker_jax.volumes import write_mrc

    maps: dict[str, np.ndarray] = {f"{name}_classes.mrc": result.classes, f"{name}_probability.mrc": result.probability}
    if result.scores is not None:
        maps |= {f"{name}_score_{label}.mrc": result.scores[..., label] for label in range(result.scores.shape[-1])}
    for file, found in maps.items():
        stored = found if item.rescaled is None else item.rescaled.onto_source(found)
        write_mrc(out / file, stored, item.voxel_size_angstrom, origin_angstrom=item.origin_angstrom)
    return [out / file for file in maps]
