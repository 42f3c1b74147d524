"""`pick`: particles of tomograms, by a trained model or another picker."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, parse, resident_bytes, say_plan
from robpicker_jax.commands.batches import OTHERWISE, Batch, named_tomograms, names_of
from robpicker_jax.commands.cli import ArgumentParser, progress
from robpicker_jax.system.files import from_here
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.datasets import TomogramFiles
    from robpicker_jax.evaluation.calibration_counts import ClassCalibration
    from robpicker_jax.picking.finished import Finished, WrittenClass
    from robpicker_jax.picking.pick_files import PickFiles, PickTarget
    from robpicker_jax.picking.picker import Picker

_DESCRIPTION = """\
Pick the particles of each tomogram by the best model of a training run: DIR/{name}.{xml,star,csv}, or with --together
all in DIR/picks.{xml,star,csv}. Tomograms need no annotations. --out may be a copick_config.json, into whose
overlay the picks then go. docs/formats.md lists the formats and their options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.picking.picker import build_picker

    picker = build_picker(options.picker, options.workdir, overrides)
    files = _files(options, picker)
    options.out = files.folder
    if options.precision is not None:
        picker = _calibrated(picker, options.workdir, options.precision)
    if options.thresholds is not None:
        picker = _with_thresholds(picker, options)
    rejected = files.folder / "rejected" if options.rejected else None
    if rejected is not None:
        _judging(picker)  # whether it can say what it dropped
    names = names_of(named_tomograms(options, picker), options, "picks")
    batch = Batch(names, _finished(picker, files, options), options, "picked")
    queue = batch.queue(picker, whole=options.together)
    output = Output(files, _targets(queue, names), {}, rejected)
    files.check(list(output.targets.values()))
    waiting = batch.waiting(queue)
    _check_outputs(queue, waiting, batch, output, picker)
    if waiting:
        bounds = [
            picker.memory(queued.shape_zyx, resident_bytes=resident)
            for queued, resident in zip(waiting, resident_bytes(waiting), strict=True)
        ]
        say_plan(picker, waiting, bounds)
        _pick(picker, waiting, batch, output)
    batch.say_end(waiting)
    if options.together:
        _write_together(queue, batch, output, picker)
    return 0


@dataclass(frozen=True)
class Output:
    """Where the picks go.

    Attributes:
        files: how they are written.
        targets: name, size and voxel size of each tomogram that can be used.
        picked: the picks of tomograms picked by this process, by name.
        rejected: folder of the lists of dropped candidates; None: none are written.
    """

    files: PickFiles
    targets: Mapping[TomogramFiles, PickTarget]
    picked: dict[str, Particles]
    rejected: Path | None

    def paths(self, target: PickTarget, picker: Picker) -> list[Path]:
        """All files of a tomogram."""
        further = [] if self.rejected is None else [self.rejected / f"{target.name}.csv"]
        return [*self.files.outputs(target, picker.class_names), *further]


def _parser() -> ArgumentParser:
    result = apply_parser("pick", _DESCRIPTION, "picks")
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
        "--rejected",
        action="store_true",
        help="also write DIR/rejected/{name}.csv: candidates that were dropped, and by which limit (size, score, edge, mask, "
        "distance, count)",
    )
    add(
        "--precision",
        metavar="P",
        type=float,
        help="smallest scores at which the meta (and validation) tomograms show this precision, with 95 %% confidence",
    )
    add(
        "--thresholds",
        metavar="NAME",
        help="smallest scores of the highest F1 on the meta (and validation) tomograms: best, or the published grid",
    )
    return result


def _files(options: argparse.Namespace, picker: Picker) -> PickFiles:
    """How the picks are to be written."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.datasets.copick_project import is_project
    from robpicker_jax.picking.copick_files import CopickFiles
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles
    from robpicker_jax.system.errors import InputError

    further = parse_options(options.format_option, "--format-option")
    if is_project(options.out):
        if options.together or options.format not in (None, ["copick"]):
            raise InputError("a copick project takes copick's picks alone", where="--out", fix="leave --format out")
        return CopickFiles.into(options.out, picker.class_names, further)
    return PickFiles(options.out, options.format or PICK_FORMATS, options.together, further)


def _targets(queue: Sequence[Queued], names: Mapping[TomogramFiles, str]) -> dict[TomogramFiles, PickTarget]:
    """Name, size and voxel size of each tomogram."""
    from robpicker_jax.picking.pick_files import PickTarget

    return {
        item.tomogram: PickTarget(
            names[item.tomogram], item.file_shape_zyx, item.voxel_size_angstrom, item.origin_angstrom
        )
        for item in queue
    }


def _finished(picker: Picker, files: PickFiles, options: argparse.Namespace) -> Finished:
    """The tomograms that were picked into the same files by the same picker, as far as that can be known."""
    from robpicker_jax.datasets.stamps import stamp
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.picker import Fingerprinted

    fingerprint = picker.fingerprint if isinstance(picker, Fingerprinted) else None
    tables = {name: stamp(Path(value)) for name, value in files.options.items() if Path(str(value)).is_file()}
    settings = {
        "picker": [options.picker, fingerprint],
        "formats": list(files.formats),
        "together": files.together,
        "options": {name: str(value) for name, value in files.options.items()},
        "files of options": tables,
        "voxel size": picker.data.voxel_size_angstrom,
    } | ({"rejected": True} if options.rejected else {})
    return Finished(options.out, "pick", None if fingerprint is None else settings, _classes(picker))


def _classes(picker: Picker) -> dict[str, WrittenClass]:
    """What the records tell of each class: the smallest score that its picks are kept with, where that is known."""
    from robpicker_jax.picking.finished import WrittenClass
    from robpicker_jax.picking.picker import Thresholded

    names = picker.class_names
    scores = picker.smallest_scores if isinstance(picker, Thresholded) else [None] * len(names)
    return {
        name: WrittenClass(name, None if score is None else float(score))
        for name, score in zip(names, scores, strict=True)
    }


def _check_outputs(
    queue: Sequence[Queued], waiting: Sequence[Queued], batch: Batch, output: Output, picker: Picker
) -> None:
    """Refuse, before anything is picked, to replace lists that are there.

    Raises:
        InputError: a file exists and may not be replaced, or is an input.
    """
    from robpicker_jax.system.outputs import check_outputs

    files = output.files
    further = [Path(value) for value in map(str, files.options.values()) if Path(value).is_file()]
    if files.together:
        targets = list(output.targets.values())
        inputs = [path for item in queue for path in (item.tomogram.volume_path, item.tomogram.mask_path)]
        check_outputs(
            files.outputs_together(targets, picker.class_names),
            inputs=[*inputs, *further],
            overwrite=batch.options.overwrite,
            own=batch.records.own_together([target.name for target in targets]),
            fix=OTHERWISE,
        )
        return
    outputs = {item.tomogram: output.paths(output.targets[item.tomogram], picker) for item in waiting}
    batch.check_free(waiting, outputs, further)


def _judging(picker: Picker) -> Callable[..., tuple[Particles, Particles]]:
    """The picker's way to pick that also gives what it dropped.

    Raises:
        InputError: it has none.
    """
    from robpicker_jax.picking.picker import Judging
    from robpicker_jax.system.errors import InputError

    if not isinstance(picker, Judging):
        raise InputError("this picker does not say what it dropped", where="--rejected", fix="leave it out")
    return picker.pick_judged


def _write_rejected(output: Output, target: PickTarget, item: Queued, dropped: Particles | None) -> list[Path]:
    """Write what was dropped of a tomogram, in voxels of its file; says how many by which limit."""
    from robpicker_jax.annotations import write_annotations

    if dropped is None or output.rejected is None:
        return []
    path = output.rejected / f"{target.name}.csv"
    size = target.voxel_size_angstrom
    write_annotations(path, item.on_file_grid(dropped), voxel_size_angstrom=size)
    counts = Counter(dropped.extra["rejected_by"].tolist())
    listed = ", ".join(f"{count} by {reason}" for reason, count in counts.most_common()) or "none"
    say(f"{path}: dropped candidates: {listed}")
    return [path]


def _calibration(picker: Picker) -> Mapping[str, ClassCalibration] | None:
    """What the picker's picks were worth on clean tomograms, where it knows."""
    from robpicker_jax.picking.picker import Calibrated

    return picker.calibration if isinstance(picker, Calibrated) else None


def _calibrated(picker: Picker, workdir: Path, precision: float) -> Picker:
    """The picker with the smallest scores for which the run's clean tomograms show a precision; says what they gave."""
    from robpicker_jax.picking import calibration

    folder = workdir if workdir.is_dir() else workdir.parent
    points = calibration.min_scores(folder, picker.class_names, precision, _calibration(picker))
    for name, point in zip(picker.class_names, points, strict=True):
        say(
            f"{name}: scores of at least {point.threshold:.3f}; precision {point.precision:.2f} (lower bound "
            f"{point.bound:.2f}) and recall {point.recall:.2f} on the calibration tomograms"
        )
    return picker.with_min_scores([point.threshold for point in points])


def _with_thresholds(picker: Picker, options: argparse.Namespace) -> Picker:
    """The picker with the smallest scores that were best on the run's clean tomograms; says what they are."""
    from robpicker_jax.picking.thresholds import chosen_thresholds
    from robpicker_jax.system.errors import InputError

    if options.precision is not None:
        raise InputError("both --precision and --thresholds are given", where="--thresholds", fix="keep one")
    folder = options.workdir if options.workdir.is_dir() else options.workdir.parent
    found = chosen_thresholds(folder, picker.class_names, options.thresholds, {}, _calibration(picker))
    for name in picker.class_names:
        kept = f"scores of at least {found[name]:.4g}" if name in found else "all scores: none on the clean tomograms"
        say(f"{name}: {kept}")
    return picker.with_min_scores([found.get(name, 0.0) for name in picker.class_names])


def _pick(picker: Picker, waiting: Sequence[Queued], batch: Batch, output: Output) -> None:
    """Pick every tomogram and write its picks, or keep them where all go into one file; says what was found."""
    items = {item.tomogram: item for item in waiting}
    files, records = output.files, batch.records
    with progress("picking", sum(picker.tiles(item.shape_zyx) for item in waiting)) as bar:
        for tomogram in batch.streamed(picker, waiting, bar.advance):
            target, item = output.targets[tomogram.files], items[tomogram.files]
            if output.rejected is None:
                found, dropped = picker.pick(tomogram, bar.advance, mask=tomogram.mask), None
            else:
                found, dropped = _judging(picker)(tomogram, bar.advance, mask=tomogram.mask)
            picks = item.on_file_grid(found)
            if files.together:
                output.picked[target.name] = picks
                written = [records.keep_picks(target.name, picks)]
                written += _write_rejected(output, target, item, dropped)
                records.add(target.name, tomogram.files, written)
            else:
                outputs = output.paths(target, picker)
                records.begin(target.name, tomogram.files, outputs)
                written = files.write(target, picks, files.outputs(target, picker.class_names))
                written += _write_rejected(output, target, item, dropped)
                results = [path for path in dict.fromkeys((*outputs, *written)) if path.is_file()]
                records.add(target.name, tomogram.files, results)
            counts = Counter(picks.labels.tolist())
            numbers = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(picker.class_names, start=1))
            say(f"{target.name if files.together else from_here(written[0])}: {numbers}")


def _write_together(queue: Sequence[Queued], batch: Batch, output: Output, picker: Picker) -> None:
    """Write the one file once every tomogram of the batch is finished, whichever process picked it."""
    parts, missing, files = [], 0, output.files
    for queued in queue:
        target = output.targets[queued.tomogram]
        if target.name in output.picked:
            parts.append((target, output.picked[target.name]))
        elif batch.records.has(target.name, queued.tomogram):
            parts.append((target, batch.records.kept_picks(target.name)))
        elif not batch.records.left_out(target.name):
            missing += 1
    if missing:
        what = (
            f"{missing} of {len(queue)} tomograms are of other shards and not finished: the last shard writes the file"
        )
        say(what)
        return
    outputs = files.outputs_together([target for target, _ in parts], picker.class_names)
    batch.records.begin_together(outputs)
    paths = files.write_together(parts, outputs)
    batch.records.add_together([target.name for target, _ in parts], [path for path in outputs if path.exists()])
    say(f"written: {', '.join(map(str, paths))}")
