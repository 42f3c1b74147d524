"""`match`: particles of tomograms by template matching."""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import progress
from robpicker_jax.commands.match_arguments import check, extractions, match_parser, match_settings, templates
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.datasets import TomogramFiles
    from robpicker_jax.matching import Matcher, Template, TomogramMatch
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.pick_files import PickFiles, PickTarget

_WORK = ".matching"
_MOST_ON_CLEAN = 1000  # picks of a template on the clean tomogram


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = match_parser().parse_args(list(arguments or ()))
    check(options)
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.datasets import agreed_voxel_size, tomograms_from
    from robpicker_jax.matching import Matcher
    from robpicker_jax.system.compilation import enable_persistent_cache

    found = list(dict.fromkeys(tomograms_from([*options.tomograms, *options.tomo], annotations=False)))
    if not found:
        raise InputError("no tomograms", where="TOMO", fix="name volume files or folders of them")
    clean = _clean(options)
    rule = NameRule.of(options.name_pattern)
    # The templates are made for one voxel size, which all tomograms must have.
    voxel_size = agreed_voxel_size([*found, *clean[:1]], options.voxel_size, source="--voxel-size")
    targets = {files: _target(files, voxel_size, rule.written(files.name)) for files in found}
    assert voxel_size is not None  # else a tomogram has been refused
    made = templates(options, voxel_size)
    _check_room(found, targets, made)
    matcher = Matcher(made, match_settings(options), extractions(options, made))
    files = _files(options)
    files.check(list(targets.values()))
    options.out.mkdir(parents=True, exist_ok=True)
    enable_persistent_cache()
    records = _records(options, matcher, clean)
    waiting = [tomogram for tomogram in found if not records.has(targets[tomogram].name, tomogram)]
    if len(waiting) < len(found):
        say(f"{len(found) - len(waiting)} of {len(found)} tomograms are finished already, by the same settings")
    if not waiting:
        return 0
    outputs = {tomogram: _outputs(files, targets[tomogram], matcher, options) for tomogram in waiting}
    _check_outputs(waiting, targets, outputs, records, options)
    _prepare(matcher)
    if clean:
        matcher = _calibrated(matcher, clean[0], clean[1], voxel_size, options)
    _say_plan(matcher, waiting, targets)
    _match_all(matcher, waiting, targets, files, outputs, records, options)
    return 0


def _clean(options: argparse.Namespace) -> tuple[()] | tuple[TomogramFiles, Path]:
    """The tomogram and the list of `--clean`, or nothing.

    Raises:
        InputError: not one tomogram, or no list.
    """
    from robpicker_jax.datasets import tomograms_from

    if options.clean is None:
        return ()
    volume, separator, path = options.clean.partition("=")
    where = f"--clean {options.clean}"
    if not separator:
        raise InputError("must read TOMO=LIST", where=where)
    tomograms = tomograms_from([volume], annotations=False)
    if len(tomograms) != 1:
        raise InputError(f"{len(tomograms)} tomograms at {volume}", where=where, fix="name one volume file")
    if not Path(path).exists():
        raise InputError(f"there is no list {path or 'named'}", where=where, fix="write TOMO=LIST")
    return tomograms[0], Path(path)


def _check_room(
    found: Sequence[TomogramFiles], targets: dict[TomogramFiles, PickTarget], made: Sequence[Template]
) -> None:
    """Refuse tomograms that are thinner than a particle: half a diameter from each face nothing is picked.

    Raises:
        InputError: naming the first of them.
    """
    from robpicker_jax.matching.extraction import rim

    for tomogram in found:
        for template in made:
            thickness = min(targets[tomogram].shape_zyx)
            if thickness <= 2 * rim(template.diameter_vox):
                raise InputError(
                    f"{thickness} voxels at its thinnest, no room for {template.name} of diameter "
                    f"{template.diameter_vox:.1f} voxels",
                    where=tomogram.volume_path,
                    fix="give a smaller --diameter, or leave the tomogram out",
                )


def _target(files: TomogramFiles, voxel_size_angstrom: float | None, name: str) -> PickTarget:
    """Name, size and voxel size of a tomogram.

    Raises:
        InputError: a volume that cannot be read, or whose voxel size is not known.
    """
    from robpicker_jax.picking.pick_files import PickTarget
    from robpicker_jax.volumes import open_volume

    with open_volume(files.volume_path) as reader:
        if voxel_size_angstrom is None:
            raise InputError(
                "the header does not give the voxel size (it says 0 or 1)", where=reader.path, fix="give --voxel-size"
            )
        return PickTarget(name, reader.shape_zyx, voxel_size_angstrom, reader.origin_angstrom)


def _files(options: argparse.Namespace) -> PickFiles:
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles

    further = parse_options(options.format_option, "--format-option")
    return PickFiles(options.out, options.format or PICK_FORMATS, False, further)


def _records(options: argparse.Namespace, matcher: Matcher, clean: tuple[()] | tuple[TomogramFiles, Path]) -> Finished:
    """The tomograms that were matched into the same files by the same settings."""
    from robpicker_jax.datasets.stamps import stamp
    from robpicker_jax.picking.finished import Finished

    settings = {
        "matcher": matcher.fingerprint(),
        "settings": repr(replace(matcher.settings, memory_bytes=None, workers=None, scheme=None)),
        "extraction": repr(matcher.extraction),
        "formats": [options.format, options.format_option, options.maps],
        "precision": [options.precision, *([stamp(clean[0].volume_path), stamp(clean[1])] if clean else [])],
        "voxel size": options.voxel_size,
    }
    return Finished(options.out, "match", settings)


def _outputs(files: PickFiles, target: PickTarget, matcher: Matcher, options: argparse.Namespace) -> list[Path]:
    """The files that the results of a tomogram go to."""
    found = files.outputs(target, matcher.class_names)
    if options.maps:
        for template in matcher.templates:
            found += _map_paths(options.out, target, template.name).values()
    return found


def _check_outputs(
    waiting: Sequence[TomogramFiles],
    targets: dict[TomogramFiles, PickTarget],
    outputs: dict[TomogramFiles, list[Path]],
    records: Finished,
    options: argparse.Namespace,
) -> None:
    """Refuse, before anything is matched, to replace what is there.

    Raises:
        InputError: a file exists and may not be replaced, or is an input.
    """
    from robpicker_jax.system.outputs import check_outputs

    read = [path for tomogram in waiting for path in (tomogram.volume_path, tomogram.mask_path)]
    clean = (options.clean or "").partition("=")
    check_outputs(
        [path for tomogram in waiting for path in outputs[tomogram]],
        inputs=[*read, *clean[::2], *options.template.split(",")],
        overwrite=options.overwrite,
        own={path for tomogram in waiting for path in records.own(targets[tomogram].name, tomogram)},
        fix="there already, made by other settings or by hand: give --overwrite or another --out",
    )


def _prepare(matcher: Matcher) -> None:
    """Make the searches; the cascade's take time."""
    total = matcher.turned()
    if not total or matcher.settings.whiten:
        matcher.prepare()
        return
    with progress("turning templates", total) as bar:
        matcher.prepare(bar.advance)


def _say_plan(matcher: Matcher, waiting: Sequence[TomogramFiles], targets: dict[TomogramFiles, PickTarget]) -> None:
    """Say what the work will take before it starts: templates, angles, tiles, and the bound on memory."""
    for template in matcher.templates:
        say(
            f"{template.name}: box {template.edge} voxels, diameter {template.diameter_vox:.1f} voxels, symmetry "
            f"{template.symmetry}, {len(matcher.rotations(template)):,} angles"
        )
    shapes = [targets[tomogram].shape_zyx for tomogram in waiting]
    tiles = sum(len(matcher.tiling(shape).starts) for shape in shapes)
    bound = max(matcher.bytes(shape) for shape in shapes)
    say(f"{len(waiting)} tomogram{'s' * (len(waiting) > 1)}, {tiles} tiles; memory: at most {bound / 2**30:.2f} GiB")


def _match_all(
    matcher: Matcher,
    waiting: Sequence[TomogramFiles],
    targets: dict[TomogramFiles, PickTarget],
    files: PickFiles,
    outputs: dict[TomogramFiles, list[Path]],
    records: Finished,
    options: argparse.Namespace,
) -> None:
    """Match every tomogram and write its picks, and its maps where they are wanted."""
    from robpicker_jax.datasets.stamps import stamp

    folders = {tomogram: options.out / _WORK / targets[tomogram].name for tomogram in waiting}
    units = sum(matcher.units(targets[tomogram].shape_zyx, folders[tomogram]) for tomogram in waiting)
    with progress("matching", units) as bar:
        for tomogram in waiting:
            target, work = targets[tomogram], folders[tomogram]
            found = _match_one(matcher, tomogram, work, stamp(tomogram.volume_path), bar.advance)
            records.begin(target.name, tomogram, outputs[tomogram])
            written = files.write(target, found.particles, files.outputs(target, matcher.class_names))
            if options.maps:
                written += _write_maps(matcher, found, target, options.out)
            made = [path for path in dict.fromkeys((*outputs[tomogram], *written)) if path.is_file()]
            records.add(target.name, tomogram, made)
            shutil.rmtree(work, ignore_errors=True)
            _report(matcher, found, target, written[0])
    if (options.out / _WORK).is_dir() and not any((options.out / _WORK).iterdir()):
        (options.out / _WORK).rmdir()


def _match_one(
    matcher: Matcher,
    tomogram: TomogramFiles,
    work: Path | None,
    stamp: object,
    on_units: Callable[[int], None] | None = None,
) -> TomogramMatch:
    from robpicker_jax.config import DataConfig
    from robpicker_jax.datasets import open_tomogram

    with open_tomogram(tomogram, DataConfig(), mode="streamed") as opened:
        return matcher.match(opened, mask=opened.mask, folder=work, stamp=stamp, on_units=on_units)


def _map_paths(out: Path, target: PickTarget, template: str) -> dict[str, Path]:
    stem = f"{target.name}_{template}"
    return {
        kind: out / f"{stem}_{kind}{end}" for kind, end in (("score", ".mrc"), ("angle", ".mrc"), ("angles", ".csv"))
    }


def _write_maps(matcher: Matcher, found: TomogramMatch, target: PickTarget, out: Path) -> list[Path]:
    """Score and angle maps as MRC, and the Euler angles that the angle maps number."""
    import numpy as np

    from robpicker_jax.annotations.geometry import euler_from_matrix
    from robpicker_jax.system.files import atomic_path
    from robpicker_jax.volumes import write_mrc

    written = []
    for part in found.templates:
        paths = _map_paths(out, target, part.template.name)
        for kind, data in (("score", part.scores), ("angle", part.angles.astype(np.float32))):
            write_mrc(paths[kind], data, target.voxel_size_angstrom, origin_angstrom=target.origin_angstrom)
            written.append(paths[kind])
        path = paths["angles"]
        angles = euler_from_matrix(matcher.rotations(part.template), "relion")
        with atomic_path(path) as temporary:
            table = np.column_stack([np.arange(len(angles)), angles])
            np.savetxt(temporary, table, "%d,%.6f,%.6f,%.6f", header="number,rot_deg,tilt_deg,psi_deg", comments="")
        written.append(path)
    return written


def _report(matcher: Matcher, found: TomogramMatch, target: PickTarget, path: Path) -> None:
    counts = Counter(found.particles.labels.tolist())
    numbers = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(matcher.class_names, start=1))
    say(f"{path}: {numbers}")
    for part in found.templates:
        if part.mirrored is not None:
            verdict = "the hand looks right" if part.mirrored < 1 else "warning: the hand may be wrong"
            say(f"{target.name}: mirrored {part.template.name} scores {part.mirrored:.3f} of it; {verdict}")


def _calibrated(
    matcher: Matcher, tomogram: TomogramFiles, path: Path, voxel_size_angstrom: float, options: argparse.Namespace
) -> Matcher:
    """The same matcher with the smallest scores that show the wanted precision on the clean tomogram.

    Raises:
        InputError: a list that cannot be used, or a precision that no score shows.
    """
    from robpicker_jax.annotations import read_annotations
    from robpicker_jax.evaluation import EvaluationOptions, evaluate
    from robpicker_jax.matching import Matcher
    from robpicker_jax.picking.calibration import calibrate, lowest, operating_points

    target = _target(tomogram, voxel_size_angstrom, tomogram.name)
    names = matcher.class_names
    truth = read_annotations(
        path,
        voxel_size_angstrom=target.voxel_size_angstrom,
        shape_zyx=target.shape_zyx,
        volume_origin_angstrom=target.origin_angstrom,
        class_labels={name: label for label, name in enumerate(names, start=1)},
    )
    truth = _of_classes(truth, names)
    loose = [replace(e, cutoff="none", min_score=None, max_picks=_MOST_ON_CLEAN) for e in matcher.extraction]
    trial = Matcher(matcher.templates, matcher.settings, loose)
    trial.share_searches(matcher)
    found = _match_one(trial, tomogram, None, None).particles
    radii = [template.diameter_vox / 2 for template in matcher.templates]
    result = evaluate({"clean": truth}, {"clean": found}, EvaluationOptions(names, radii_vox=radii))
    classes = calibrate(result)
    chosen = []
    for name, extraction in zip(names, matcher.extraction, strict=True):
        point = lowest(operating_points(classes[name]), options.precision) if name in classes else None
        if point is None:
            raise InputError(
                f"a precision of {options.precision:g} is not shown for {name}",
                where=options.clean,
                fix="ask for less, or give --min-score",
            )
        say(
            f"{name}: scores of at least {point.threshold:.3f}; precision {point.precision:.2f} (lower bound "
            f"{point.bound:.2f}) and recall {point.recall:.2f} on {tomogram.volume_path}"
        )
        chosen.append(replace(extraction, cutoff="none", min_score=point.threshold))
    result_matcher = Matcher(matcher.templates, matcher.settings, chosen)
    result_matcher.share_searches(matcher)
    return result_matcher


def _of_classes(truth: Particles, names: Sequence[str]) -> Particles:
    """The true particles of the templates' classes, labelled as the templates are; a list without names has labels."""
    import numpy as np

    if truth.class_names is not None:
        known = {name: label for label, name in enumerate(names, start=1)}
        labels = np.array([known.get(str(name), 0) for name in truth.class_names], np.int32)
        truth = truth.with_(labels=np.where((labels == 0) & (truth.class_names == ""), truth.labels, labels))
    return truth.select((truth.labels >= 1) & (truth.labels <= len(names)))
