"""`pick`: particles of tomograms, by a trained model or another picker."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import apply_parser, parse, resident_bytes, say_plan
from robpicker_jax.commands.batches import OTHERWISE, Batch, names_of, tomograms_of
from robpicker_jax.commands.cli import ArgumentParser, progress
from robpicker_jax.commands.pick_scores import with_chosen_scores
from robpicker_jax.system.files import from_here
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.commands.applying import Queued
    from robpicker_jax.datasets import TomogramFiles
    from robpicker_jax.picking.finished import Finished, WrittenClass
    from robpicker_jax.picking.pick_files import PickFiles, PickTarget
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.picking.species_choice import SpeciesChoice

_DESCRIPTION = """\
Pick the particles of each tomogram by the best model of a training run: DIR/{name}.{xml,star,csv}, or with --together
all in DIR/picks.{xml,star,csv}. Tomograms need no annotations. --out may be a copick_config.json, into whose
overlay the picks then go. docs/formats.md lists the formats and their options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options, overrides = parse(_parser(), list(arguments or ()))
    from robpicker_jax.picking.picker import build_picker
    from robpicker_jax.picking.species_choice import SpeciesChoice

    picker = build_picker(options.picker, options.workdir, overrides)
    files, choice = _files(options, SpeciesChoice.of(options.species, picker.class_names))
    options.out = files.folder
    picker = with_chosen_scores(picker, options, choice)
    rejected = files.folder / "rejected" if options.rejected else None
    if rejected is not None:
        _judging(picker)  # whether it can say what it dropped
    names = names_of(tomograms_of(options, picker), options, "picks")
    batch = Batch(names, _finished(picker, files, choice, options), options, "picked")
    queue = batch.queue(picker, whole=options.together)
    output = Output(files, choice, _targets(queue, names), {}, rejected)
    files.check(list(output.targets.values()))
    waiting = batch.waiting(queue)
    _check_outputs(queue, waiting, batch, output)
    if waiting:
        bounds = [
            picker.memory(queued.shape_zyx, resident_bytes=resident)
            for queued, resident in zip(waiting, resident_bytes(waiting), strict=True)
        ]
        say_plan(picker, waiting, bounds)
        _pick(picker, waiting, batch, output)
    batch.say_end(waiting)
    if options.together:
        _write_together(queue, batch, output)
    return 0


@dataclass(frozen=True)
class Output:
    """Where the picks go.

    Attributes:
        files: how they are written.
        choice: which species are written.
        targets: name, size and voxel size of each tomogram that can be used.
        picked: the picks of tomograms picked by this process, by name.
        rejected: folder of the lists of dropped candidates; None: none are written.
    """

    files: PickFiles
    choice: SpeciesChoice
    targets: Mapping[TomogramFiles, PickTarget]
    picked: dict[str, Particles]
    rejected: Path | None

    def paths(self, target: PickTarget) -> list[Path]:
        """All files of a tomogram."""
        further = [] if self.rejected is None else [self.rejected / f"{target.name}.csv"]
        return [*self.files.outputs(target, self.choice.names), *further]


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
        "--species",
        metavar="NAME[=OTHER]",
        action="append",
        default=[],
        help="write picks of this species alone, in the lists called OTHER, which may be an object of a copick project; "
        "several with commas, or repeat; default: all",
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


def _files(options: argparse.Namespace, choice: SpeciesChoice) -> tuple[PickFiles, SpeciesChoice]:
    """How the picks are to be written, and which species, of which a copick project may lack some.

    Raises:
        InputError: formats or options that cannot be, or a copick project without an object for what is to be written.
    """
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.datasets.copick_project import is_project, object_names
    from robpicker_jax.picking.copick_files import CopickFiles
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles
    from robpicker_jax.system.errors import InputError

    further = parse_options(options.format_option, "--format-option")
    if is_project(options.out):
        if options.together or options.format not in (None, ["copick"]):
            raise InputError("a copick project takes copick's picks alone", where="--out", fix="leave --format out")
        files = CopickFiles.into(options.out, choice.names, further, every=bool(options.species))
        missing = [name for name in choice.names if name not in files.objects]
        if missing:
            say(
                f"{options.out}: has no object for {', '.join(missing)}, whose picks are not written; --species NAME=OBJECT "
                f"names one of its objects: {', '.join(object_names(files.project))}"
            )
        return files, choice.renamed(files.objects)
    return PickFiles(options.out, options.format or PICK_FORMATS, options.together, further), choice


def _targets(queue: Sequence[Queued], names: Mapping[TomogramFiles, str]) -> dict[TomogramFiles, PickTarget]:
    """Name, size and voxel size of each tomogram."""
    from robpicker_jax.picking.pick_files import PickTarget

    return {
        item.tomogram: PickTarget(
            names[item.tomogram], item.file_shape_zyx, item.voxel_size_angstrom, item.origin_angstrom
        )
        for item in queue
    }


def _finished(picker: Picker, files: PickFiles, choice: SpeciesChoice, options: argparse.Namespace) -> Finished:
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
    settings |= {} if choice.is_everything else {"species": list(choice.written.items())}
    return Finished(options.out, "pick", None if fingerprint is None else settings, _classes(picker, choice, files))


def _classes(picker: Picker, choice: SpeciesChoice, files: PickFiles) -> dict[str, WrittenClass]:
    """What the records tell of each class: its species, and the smallest score that its picks are kept with."""
    from robpicker_jax.picking.finished import WrittenClass
    from robpicker_jax.picking.picker import Thresholded

    names = picker.class_names
    scores = picker.smallest_scores if isinstance(picker, Thresholded) else [None] * len(names)
    of_species = dict(zip(names, scores, strict=True))
    found = {}
    for name in choice.names:
        species = choice.species_of(name)
        score = of_species[species[0]] if len(species) == 1 else None
        known = WrittenClass(species[0] if len(species) == 1 else None, None if score is None else float(score))
        found[files.written_name(name)] = known
    return found


def _check_outputs(queue: Sequence[Queued], waiting: Sequence[Queued], batch: Batch, output: Output) -> None:
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
            files.outputs_together(targets, output.choice.names),
            inputs=[*inputs, *further],
            overwrite=batch.options.overwrite,
            own=batch.records.own_together([target.name for target in targets]),
            fix=OTHERWISE,
        )
        return
    outputs = {item.tomogram: output.paths(output.targets[item.tomogram]) for item in waiting}
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
    dropped = output.choice.of_picks(dropped)
    write_annotations(path, item.on_file_grid(dropped), voxel_size_angstrom=size)
    counts = Counter(dropped.extra["rejected_by"].tolist())
    listed = ", ".join(f"{count} by {reason}" for reason, count in counts.most_common()) or "none"
    say(f"{path}: dropped candidates: {listed}")
    return [path]


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
            picks = item.on_file_grid(output.choice.of_picks(found))
            if files.together:
                output.picked[target.name] = picks
                written = [records.keep_picks(target.name, picks)]
                written += _write_rejected(output, target, item, dropped)
                records.add(target.name, tomogram.files, written)
            else:
                outputs = output.paths(target)
                records.begin(target.name, tomogram.files, outputs)
                written = files.write(target, picks, files.outputs(target, output.choice.names))
                written += _write_rejected(output, target, item, dropped)
                results = [path for path in dict.fromkeys((*outputs, *written)) if path.is_file()]
                records.add(target.name, tomogram.files, results)
            counts = Counter(picks.labels.tolist())
            numbers = ", ".join(f"{counts[label]} {name}" for label, name in enumerate(output.choice.names, start=1))
            say(f"{target.name if files.together else from_here(written[0])}: {numbers}")


def _write_together(queue: Sequence[Queued], batch: Batch, output: Output) -> None:
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
    outputs = files.outputs_together([target for target, _ in parts], output.choice.names)
    batch.records.begin_together(outputs)
    paths = files.write_together(parts, outputs)
    batch.records.add_together([target.name for target, _ in parts], [path for path in outputs if path.exists()])
    say(f"written: {', '.join(map(str, paths))}")
