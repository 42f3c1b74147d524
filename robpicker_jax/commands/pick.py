"""`pick`: particles of tomograms, by a trained model or another picker."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, checked_tomograms, parse, resident_bytes, say_plan, streamed
from robpicker_jax.commands.cli import ArgumentParser, console, progress

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.picking.pick_files import PickFiles, PickTarget
    from robpicker_jax.picking.picker import Picker

_DESCRIPTION = """\
Pick the particles of each tomogram by the best model of a training run: DIR/{name}.{xml,star,csv}, or with --together
all in DIR/picks.{xml,star,csv}. Tomograms need no annotations. docs/formats.md lists the formats and their options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.picking.picker import build_picker

    picker = build_picker(options.picker, options.workdir, overrides)
    queue = checked_tomograms(options)
    files = _files(options)
    targets = _targets(queue, options.name_pattern, picker.data.voxel_size_angstrom)
    files.check(list(targets.values()))
    if options.precision is not None:
        picker = _calibrated(picker, options.workdir, options.precision)
    bounds = [
        picker.memory(queued.shape_zyx, resident_bytes=resident)
        for queued, resident in zip(queue, resident_bytes(queue), strict=True)
    ]
    say_plan(picker, queue, bounds)
    picked = _pick(picker, queue, targets, files)
    if options.together:
        paths = files.write_together(picked)
        console.print(f"written: {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)
    return 0


def _parser() -> ArgumentParser:
    result = apply_parser("pick", _DESCRIPTION)
    add = result.add_argument
    add("--picker", metavar="NAME", default="model", help="what picks; default: model, a trained model")
    add("--format", metavar="NAME", action="append", help="annotation format, may be repeated; default: xml, star, csv")
    add(
        "--together",
        action="store_true",
        help="one file for all tomograms; formats that only number them get picks_tomograms.doc beside it",
    )
    add(
        "--format-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="option of writing, such as binning=4 for RELION's unbinned pixels; repeat",
    )
    add(
        "--precision",
        metavar="P",
        type=float,
        help="smallest scores at which each class had this precision on the meta (and validation) tomograms",
    )
    return result


def _files(options: argparse.Namespace) -> PickFiles:
    """How the picks are to be written."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles

    further = parse_options(options.format_option, "--format-option")
    return PickFiles(options.out, options.format or PICK_FORMATS, options.together, further)


def _targets(queue: Sequence[Queued], pattern: str | None, configured: float | None) -> dict[Path, PickTarget]:
    """Name, size and voxel size of each tomogram, by its volume."""
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.datasets import agreed_voxel_size
    from robpicker_jax.picking.pick_files import PickTarget

    rule = NameRule.of(pattern)
    return {
        queued.tomogram.volume_path: PickTarget(
            rule.written(queued.tomogram.name),
            queued.shape_zyx,
            agreed_voxel_size([queued.reader], configured),
        )
        for queued in queue
    }


def _calibrated(picker: Picker, workdir: Path, precision: float) -> Picker:
    """The picker with the smallest scores that gave a precision on the run's clean tomograms."""
    from robpicker_jax.picking import calibration

    folder = workdir if workdir.is_dir() else workdir.parent
    scores = calibration.min_scores(folder, picker.class_names, precision)
    shown = ", ".join(f"{name} {score:.3f}" for name, score in zip(picker.class_names, scores, strict=True))
    console.print(f"smallest scores for a precision of {precision:g}: {shown}", highlight=False)
    return picker.with_min_scores(scores)


def _pick(
    picker: Picker, queue: Sequence[Queued], targets: dict[Path, PickTarget], files: PickFiles
) -> list[tuple[PickTarget, Particles]]:
    """Pick every tomogram and write its picks, unless all go into one file; says what was found."""
    picked = []
    with progress("picking", sum(picker.tiles(queued.shape_zyx) for queued in queue)) as bar:
        for tomogram in streamed(picker, queue):
            picks = picker.pick(tomogram, bar.advance, mask=tomogram.mask)
            target = targets[tomogram.files.volume_path]
            picked.append((target, picks))
            written = target.name if files.together else str(files.write(target, picks)[0])
            counts = Counter(picks.labels.tolist())
            found = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(picker.class_names, start=1))
            console.print(f"{written}: {found}", highlight=False, soft_wrap=True)
    return picked
