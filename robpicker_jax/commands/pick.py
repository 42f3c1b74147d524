"""`pick`: particles of tomograms, by a trained model or another picker."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import (
    OTHERWISE,
    apply_parser,
    check_free,
    checked_tomograms,
    parse,
    resident_bytes,
    say_bad,
    say_plan,
    share,
    streamed,
    unfinished,
)
from robpicker_jax.commands.cli import ArgumentParser, console, progress
from robpicker_jax.system.files import from_here
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.datasets import TomogramFiles
    from robpicker_jax.evaluation.calibration_counts import ClassCalibration
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.pick_files import PickFiles, PickTarget
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.system.errors import InputError

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
    queue = checked_tomograms(options, picker)
    targets = _targets(queue, options.name_pattern)
    files.check(list(targets.values()))
    if options.precision is not None:
        picker = _calibrated(picker, options.workdir, options.precision)
    if options.thresholds is not None:
        picker = _with_thresholds(picker, options)
    rejected = files.folder / "rejected" if options.rejected else None
    if rejected is not None:
        _judging(picker)  # whether it can say what it dropped
    batch = Batch(_finished(picker, files, options), targets, {}, options.skip_bad, rejected)
    waiting = unfinished(share(queue, options), batch.records, batch.names)
    _check_outputs(queue, waiting, batch, files, picker, options)
    if waiting:
        bounds = [
            picker.memory(queued.shape_zyx, resident_bytes=resident)
            for queued, resident in zip(waiting, resident_bytes(waiting), strict=True)
        ]
        say_plan(picker, waiting, bounds)
        _pick(picker, waiting, batch, files)
    if options.together:
        _write_together(queue, batch, files, picker)
    return 0


@dataclass(frozen=True)
class Batch:
    """The tomograms of one command.

    Attributes:
        records: which are finished.
        targets: name, size and voxel size of each tomogram.
        picked: the picks of tomograms picked by this process, by name.
        skip_bad: whether tomograms that cannot be used are left out.
        rejected: folder of the lists of dropped candidates; None: none are written.
    """

    records: Finished
    targets: dict[TomogramFiles, PickTarget]
    picked: dict[str, Particles]
    skip_bad: bool
    rejected: Path | None = None

    @property
    def names(self) -> dict[TomogramFiles, str]:
        """Name of each tomogram as its lists carry it."""
        return {tomogram: target.name for tomogram, target in self.targets.items()}


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


def _targets(queue: Sequence[Queued], pattern: str | None) -> dict[TomogramFiles, PickTarget]:
    """Name, size and voxel size of each tomogram."""
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.picking.pick_files import PickTarget

    rule = NameRule.of(pattern)
    return {
        queued.tomogram: PickTarget(
            rule.written(queued.tomogram.name),
            queued.file_shape_zyx,
            queued.voxel_size_angstrom,
            queued.reader.origin_angstrom,
        )
        for queued in queue
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
    return Finished(options.out, "pick", None if fingerprint is None else settings)


def _check_outputs(
    queue: Sequence[Queued],
    waiting: Sequence[Queued],
    batch: Batch,
    files: PickFiles,
    picker: Picker,
    options: argparse.Namespace,
) -> None:
    """Refuse, before anything is picked, to replace lists that are there.

    Raises:
        InputError: a file exists and may not be replaced, or is an input.
    """
    from robpicker_jax.system.outputs import check_outputs

    further = [Path(value) for value in map(str, files.options.values()) if Path(value).is_file()]
    if files.together:
        targets = list(batch.targets.values())
        inputs = [path for item in queue for path in (item.tomogram.volume_path, item.tomogram.mask_path)]
        check_outputs(
            files.outputs_together(targets, picker.class_names),
            inputs=[*inputs, *further],
            overwrite=options.overwrite,
            own=batch.records.own_together([target.name for target in targets]),
            fix=OTHERWISE,
        )
        return
    outputs = {item.tomogram: _outputs(batch, batch.targets[item.tomogram], files, picker) for item in waiting}
    check_free(outputs, waiting, batch.records, batch.names, options, further)


def _outputs(batch: Batch, target: PickTarget, files: PickFiles, picker: Picker) -> list[Path]:
    """All files of a tomogram."""
    further = [] if batch.rejected is None else [batch.rejected / f"{target.name}.csv"]
    return [*files.outputs(target, picker.class_names), *further]


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


def _write_rejected(batch: Batch, target: PickTarget, item: Queued, dropped: Particles | None) -> list[Path]:
    """Write what was dropped of a tomogram, in voxels of its file; says how many by which limit."""
    from robpicker_jax.annotations import write_annotations

    if dropped is None or batch.rejected is None:
        return []
    path = batch.rejected / f"{target.name}.csv"
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


def _pick(picker: Picker, queue: Sequence[Queued], batch: Batch, files: PickFiles) -> None:
    """Pick every tomogram and write its picks, or keep them where all go into one file; says what was found."""
    items = {item.tomogram: item for item in queue}
    tiles = {item.tomogram: picker.tiles(item.shape_zyx) for item in queue}
    bad = []
    with progress("picking", sum(tiles.values())) as bar:

        def leave_out(tomogram: TomogramFiles, error: InputError) -> None:
            bad.append(tomogram)
            batch.records.leave_out(batch.targets[tomogram].name, tomogram, str(error))
            say_bad(tomogram, error)
            bar.advance(tiles[tomogram])

        for tomogram in streamed(picker, queue, leave_out if batch.skip_bad else None):
            target = batch.targets[tomogram.files]
            if batch.rejected is None:
                found, dropped = picker.pick(tomogram, bar.advance, mask=tomogram.mask), None
            else:
                found, dropped = _judging(picker)(tomogram, bar.advance, mask=tomogram.mask)
            picks = items[tomogram.files].on_file_grid(found)
            if files.together:
                batch.picked[target.name] = picks
                written = [batch.records.keep_picks(target.name, picks)]
                written += _write_rejected(batch, target, items[tomogram.files], dropped)
                batch.records.add(target.name, tomogram.files, written)
            else:
                outputs = _outputs(batch, target, files, picker)
                batch.records.begin(target.name, tomogram.files, outputs)
                written = files.write(target, picks, files.outputs(target, picker.class_names))
                written += _write_rejected(batch, target, items[tomogram.files], dropped)
                batch.records.add(
                    target.name,
                    tomogram.files,
                    [path for path in dict.fromkeys((*outputs, *written)) if path.is_file()],
                )
            counts = Counter(picks.labels.tolist())
            numbers = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(picker.class_names, start=1))
            say(f"{target.name if files.together else from_here(written[0])}: {numbers}")
    if bad:
        console.print(f"{len(queue) - len(bad)} tomograms picked, {len(bad)} left out", highlight=False)


def _write_together(queue: Sequence[Queued], batch: Batch, files: PickFiles, picker: Picker) -> None:
    """Write the one file once every tomogram of the batch is finished, whichever process picked it."""
    parts, missing = [], 0
    for queued in queue:
        target = batch.targets[queued.tomogram]
        if target.name in batch.picked:
            parts.append((target, batch.picked[target.name]))
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
