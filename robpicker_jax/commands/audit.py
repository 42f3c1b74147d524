"""`audit`: which of one's own annotations are suspicious, by a trained model."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import (
    Queued,
    model_parser,
    parse,
    queued,
    resident_bytes,
    say_plan,
    streamed,
)
from robpicker_jax.commands.cli import ArgumentParser, fraction, progress
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.auditing.examine import Auditor
    from robpicker_jax.auditing.files import AuditedList
    from robpicker_jax.config import DataConfig
    from robpicker_jax.datasets import OpenedTomogram, TomogramFiles
    from robpicker_jax.picking.model_picker import ModelPicker
    from robpicker_jax.reporting import TomogramView
    from robpicker_jax.reporting.gallery import CloseUp
    from robpicker_jax.training.corrector import Corrector

_OTHERWISE = "use another --out, or give --overwrite"
_DESCRIPTION = """\
Rank the annotations of a data set by how suspicious a trained model finds them: false ones, ones of the wrong class,
displaced ones, and particles that were not annotated. Writes DIR/audit.csv with all of them, lists for review
(DIR/review), a gallery (DIR/index.html), a page on which they are reviewed (DIR/review.html), and with --apply the
cleaned lists (DIR/cleaned). docs/audit.md explains the scores. A model doubts labels that it was trained on less than others.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.auditing import examine, files
    from robpicker_jax.picking.picker import model_picker
    from robpicker_jax.reporting.review_page import page_paths
    from robpicker_jax.system.outputs import check_outputs

    min_scores = _min_scores(options.min_score)
    check_outputs(files.outputs(options.out), overwrite=options.overwrite, fix=_OTHERWISE)
    picker = _with_options_of_run(model_picker(options.workdir, overrides), options)
    auditor = examine.Auditor(picker, options.displaced, options.least_probability)
    queue = queued(_annotated(options.data, options.split, picker.data, picker.class_names), options, picker)
    lists = _read_lists(queue, picker)
    if options.apply:
        for entry in lists:
            entry.check_writable()
    names = picker.class_names
    read = [path for entry in lists for path in (entry.files.volume_path, *(p for _, p in entry.files.lists(names)))]
    written = files.outputs(options.out, lists if options.apply else ())
    written += page_paths(options.out, files.PAGE, len(lists))[1:]
    check_outputs(written, inputs=read, overwrite=options.overwrite, fix=_OTHERWISE)
    bounds = [
        auditor.memory(item.shape_zyx, resident_bytes=resident)
        for item, resident in zip(queue, resident_bytes(queue), strict=True)
    ]
    say_plan(picker, queue, bounds)
    found, close_ups, views = _examine(auditor, queue, lists, options)
    _write(found, close_ups, lists, picker, options, min_scores)
    _write_pages(views, auditor, queue[0].factor, options)
    return 0


def _parser() -> ArgumentParser:
    result = model_parser("audit", _DESCRIPTION)
    add = result.add_argument
    add(
        "--data",
        metavar="DIR",
        type=Path,
        help="the data set whose annotations are audited; default: the one that the run was trained on",
    )
    add(
        "--split",
        metavar="NAME",
        choices=("train", "meta", "val", "test"),
        default="train",
        help="which of its tomograms: train (default), meta, val or test",
    )
    add(
        "--min-score",
        metavar="[KIND=]S",
        action="append",
        default=[],
        help="smallest score of what is listed for review and applied, of all kinds or of one (false, wrong_class, "
        "displaced, missing); repeat; default: 0.5",
    )
    add(
        "--displaced",
        metavar="SHARE",
        type=fraction,
        default=0.5,
        help="displacement, as a share of the radius, that scores one half; default: 0.5",
    )
    add(
        "--least-probability",
        metavar="P",
        type=fraction,
        default=0.3,
        help="probability of any particle from which voxels may be a missing one; default: 0.3",
    )
    add("--top", metavar="N", type=int, default=120, help="suspicions in the gallery, of all kinds; default: 120")
    add("--no-correction", action="store_true", help="leave out what the run's label correction does at each particle")
    add("--apply", action="store_true", help="write cleaned lists in the formats of their sources, and changes.json")
    add("--overwrite", action="store_true", help="replace an earlier audit in DIR")
    return result


def _min_scores(given: Sequence[str]) -> dict[str, float]:
    """Smallest score of each kind; later ones win."""
    from robpicker_jax.auditing import KINDS
    from robpicker_jax.system.errors import InputError

    scores = dict.fromkeys(KINDS, 0.5)
    for text in given:
        kind, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1 or (equals and kind not in KINDS):
            raise InputError(
                f"{text!r} is neither a score in [0, 1] nor KIND=SCORE",
                where="--min-score",
                fix=f"kinds: {', '.join(KINDS)}",
            )
        scores.update({kind: value} if equals else dict.fromkeys(KINDS, value))
    return scores


def _with_options_of_run(picker: ModelPicker, options: argparse.Namespace) -> ModelPicker:
    """The picker, reading lists as its run did, where the command line does not say otherwise; a model does not tell.

    Without `--data`, that becomes the run's.

    Raises:
        InputError: no `--data`, and a run that simulated its data or a model that is none.
    """
    from robpicker_jax.datasets.configured import is_own
    from robpicker_jax.datasets.flat_folder import describes_flat
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.training.run_folder import read_config

    data, workdir = picker.data, options.workdir
    trained = read_config(workdir).data if (workdir / "config.yaml").is_file() else None
    if options.data is None:
        own = workdir / "data"
        options.data = own if own.is_dir() else Path(trained.dir) if trained is not None and trained.dir else None
    if options.data is None:
        raise InputError("no data set", where=workdir, fix="give --data DIR")
    if trained is None:
        return picker
    data = replace(
        data,
        annotation_options=data.annotation_options or trained.annotation_options,
        name_pattern=data.name_pattern or trained.name_pattern,
    )
    if is_own(options.data, trained) and not describes_flat(data):
        data = replace(data, splits=trained.splits, lists=trained.lists, volumes=trained.volumes)
    return replace(picker, model=replace(picker.model, card=replace(picker.model.card, data=data)))


def _annotated(folder: Path, split: str, data: DataConfig, class_names: Sequence[str]) -> list[TomogramFiles]:
    """The tomograms of a split that have annotations."""
    from robpicker_jax.datasets import dataset
    from robpicker_jax.system.errors import InputError

    everything = dataset(folder, data)[split]
    found = [files for files in everything if files.lists(class_names)]
    if not found:
        raise InputError(f"no annotated tomogram in {split}/", where=folder, fix="name another --split")
    if len(found) < len(everything):
        say(f"without annotations, left out: {', '.join(f.name for f in everything if not f.lists(class_names))}")
    return found


def _read_lists(queue: Sequence[Queued], picker: ModelPicker) -> list[AuditedList]:
    """The annotations of each tomogram, before the first is segmented."""
    from robpicker_jax.auditing.files import AuditedList
    from robpicker_jax.datasets import load_particles

    lists = []
    for item in queue:
        shape, voxel_size, origin = item.file_shape_zyx, item.voxel_size_angstrom, item.origin_angstrom
        particles = load_particles(item.tomogram, picker.data, shape, voxel_size, origin)
        lists.append(AuditedList(item.tomogram, particles, shape, voxel_size, picker.data, origin))
    return lists


def _examine(
    auditor: Auditor, queue: Sequence[Queued], lists: Sequence[AuditedList], options: argparse.Namespace
) -> tuple[Particles, list[CloseUp], list[TomogramView]]:
    """All rows by falling score, close-ups of the first ones and what the pages show, cut while each tomogram is open."""
    from robpicker_jax.annotations import Particles
    from robpicker_jax.auditing.examine import by_falling_score
    from robpicker_jax.reporting.gallery import close_up
    from robpicker_jax.reporting.review_page import reviewed_view
    from robpicker_jax.training.corrector import load_corrector
    from robpicker_jax.volumes import open_volume

    corrector = None if options.no_correction else load_corrector(options.workdir)
    radii = auditor.radii_vox
    parts: list[Particles] = []
    views: list[TomogramView] = []
    pictures: dict[int, CloseUp] = {}  # by row of all parts together
    with progress("auditing", sum(auditor.picker.tiles(item.shape_zyx) for item in queue)) as bar:
        for item, tomogram, entry in zip(queue, streamed(auditor.picker, queue), lists, strict=True):
            given = entry.particles.with_(positions_vox=entry.particles.positions_vox * item.factor)
            rows = auditor.examine(tomogram, given, tomogram.name, mask=tomogram.mask, on_tiles=bar.advance)
            if corrector is not None:
                rows = _with_opinion(rows, corrector, tomogram, given, radii)
            before = sum(map(len, parts))
            for rank in range(min(options.top, len(rows))):
                radius = radii[rows.labels[rank] - 1]
                pictures[before + rank] = close_up(tomogram, rows.positions_vox[rank], radius)
            parts.append(_on_file_grid(rows, item))
            with open_volume(item.tomogram.volume_path) as volume:
                views.append(reviewed_view(tomogram.name, volume, parts[-1], item.voxel_size_angstrom))
            counts = Counter(rows.extra["kind"].tolist())
            say(f"{tomogram.name}: {len(entry.particles)} annotations, {counts['missing']} candidates for missing ones")
    everything = Particles.concatenate(parts)
    order = by_falling_score(everything)
    return everything.select(order), [pictures[row] for row in order[: max(options.top, 0)].tolist()], views


def _on_file_grid(rows: Particles, item: Queued) -> Particles:
    """The rows in voxels of the file, suggested positions too."""
    suggested = {name: rows.extra[name] / item.factor for name in rows.extra if name.endswith("_vox")}
    return item.on_file_grid(rows).with_(extra={**rows.extra, **suggested})


def _with_opinion(
    rows: Particles, corrector: Corrector, tomogram: OpenedTomogram, particles: Particles, radii: Sequence[float]
) -> Particles:
    """The rows with a column `correction`: the label that the run's correction adds or removes at each."""
    from robpicker_jax.auditing.opinion import label_change

    change = label_change(corrector, tomogram, particles, rows, radii, corrector.config.patches.size)
    return rows.with_(extra={**rows.extra, "correction": change})


def _write(
    found: Particles,
    close_ups: Sequence[CloseUp],
    lists: Sequence[AuditedList],
    picker: ModelPicker,
    options: argparse.Namespace,
    min_scores: dict[str, float],
) -> None:
    """Write everything, and say what was found."""
    from robpicker_jax.auditing import KINDS, files
    from robpicker_jax.auditing.cleaning import suspected
    from robpicker_jax.models.model_file import fingerprint
    from robpicker_jax.reporting.gallery import write_gallery

    counts = Counter(suspected(found, min_scores).extra["kind"].tolist())
    say(f"written: {files.write_table(options.out, found)}")
    files.write_review(options.out, found, min_scores, lists)
    subtitle = f"{options.data.name}/{options.split}: {sum(len(entry.particles) for entry in lists)} annotations"
    shown = found.select(slice(len(close_ups)))
    gallery = options.out / files.GALLERY
    write_gallery(gallery, shown, close_ups, subtitle=subtitle, of=sum(counts.values()))
    say(f"gallery: {gallery}")
    for kind in KINDS:
        say(f"{kind}: {counts[kind]} with a score of at least {min_scores[kind]:g}")
    if options.apply:
        card = picker.model.card
        model = {"sha256": fingerprint(picker.model), "step": card.step, "package_version": card.package_version}
        changed = files.write_cleaned(options.out, found, min_scores, lists, model)
        say(f"{changed} changes applied: {options.out / files.CLEANED}")


def _write_pages(views: Sequence[TomogramView], auditor: Auditor, factor: float, options: argparse.Namespace) -> None:
    """Write the pages on which the suspicions are reviewed; `factor`: voxels of the model in one of the files'."""
    from robpicker_jax.auditing import files
    from robpicker_jax.reporting.data import AfterReview, Command, SpeciesInfo
    from robpicker_jax.reporting.review_page import page_paths, write_review_page
    from robpicker_jax.reporting.viewer import MAX_TOMOGRAMS

    species = [SpeciesInfo(entry.name, entry.radius_vox / factor) for entry in auditor.picker.data.species]
    workdir, data, out = (shlex.quote(str(path)) for path in (options.workdir, options.data, options.out))
    before = f"robpicker audit --workdir {workdir} --data {data} --split {options.split} --out {out}"
    command = Command(before, "--min-score", "--apply --overwrite")
    table = shlex.quote(str(options.out / files.TABLE))
    after_review = AfterReview(after=f" --picks {table} --out CLEANED")
    title = f"Audit: {options.data.name}/{options.split}"
    paths = page_paths(options.out, files.PAGE, len(views))
    for number, path in enumerate(paths, start=1):
        part = views[(number - 1) * MAX_TOMOGRAMS : number * MAX_TOMOGRAMS]
        subtitle = ", ".join(view.name for view in part)
        write_review_page(path, title, subtitle, species, part, command, after_review=after_review, number=number)
        say(f"to review: {path}")
