"""`average`: subtomogram averages of picks, with FSC and masks."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import (
    ArgumentParser,
    configured_parser,
    console,
    fraction,
    positive_number,
    progress,
    split_overrides,
)
from robpicker_jax.commands.optics_arguments import add_contrast, add_optics, add_tilts
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.averaging.results import AverageResult
    from robpicker_jax.commands.averaging_inputs import AveragingInputs, ClassInputs

_LISTS = "lists"
_PAGE = "report.html"
_SHARED_DETAIL_ANGSTROM = 40.0  # what both halves may share of a reference without a word
_DESCRIPTION = """\
Average the picks of each class: boxes around them are aligned, summed with the weights of missing wedge and CTF in two
halves that never see each other's reference, and compared by Fourier shell correlation.

Writes for each class DIR/{class}: average, half1, half2, filtered, mask, mask_soft (.mrc); fsc.json, fsc.csv, fsc.png;
slices.png; particles with refined poses. DIR/lists holds one list of all classes for each tomogram (for `targets
--labels shape`), DIR/average.json the figures, DIR/report.html
every class. The same command again goes on where it
stopped; more --iterations are added to those that are there.

An average does not prove its picks: noise aligned to a template looks like the template, and so does its FSC.
docs/averaging.md says what guards against it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read the lists and headers, average class by class, report."""
    rest, overrides = split_overrides(list(arguments or ()))
    options = _parser().parse_args(rest)
    _check(options)
    from robpicker_jax.commands.averaging_inputs import read_inputs
    from robpicker_jax.system.compilation import enable_persistent_cache

    inputs = read_inputs(options, overrides)
    former = _former(options)
    _check_classes(former, inputs, options)
    for entry in inputs.classes:
        entry.job.check(overwrite=options.overwrite)
    _check_outputs(former, inputs, options)
    enable_persistent_cache()
    _say_plan(inputs)
    results = []
    with progress("averaging", sum(entry.job.steps() for entry in inputs.classes)) as bar:
        for entry in inputs.classes:
            result = entry.job.run(lambda n: bar.advance(n), overwrite=options.overwrite)
            results.append(result)
            _write_class(entry, result, inputs, options)
    _write_all(inputs, results, options, former)
    _report(inputs, results, options.out)
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("average", _DESCRIPTION, ("data",))
    add = result.add_argument
    add("--tomo", metavar="TOMO", nargs="+", required=True, help="volume files, or folders of them")
    add("--picks", metavar="LIST", type=Path, nargs="+", required=True, help="particle lists, or folders of them")
    add("--out", metavar="DIR", type=Path, required=True, help="where to write")
    add("--class", metavar="NAME", dest="only", action="append", help="average this class only; repeat; default: all")
    add("--classes", metavar="NAME,…", type=_names, help="name of class 1, 2, …, without --config")
    add("--radii-angstrom", metavar="ANGSTROM,…", type=_numbers, help="radius of a ball that holds the particle, Å, one "
        "for all or for class 1, 2, …; default: one and a half of the species' radius in --config")  # fmt: skip
    add("--radii", metavar="VOX,…", type=_numbers, help="the same in voxels")
    add("--box", metavar="VOX", type=int, help="edge of the boxes, voxels; default: about two diameters")
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size, where headers do not say")
    add("--picks-format", metavar="NAME", help="format of the lists, where their suffix does not tell")
    add("--picks-option", metavar="NAME=VALUE", action="append", default=[], help="how the lists are read; repeat")
    add("--min-score", metavar="S", type=float, help="leave out picks of a lower score")
    add("--tilts", metavar="MIN,MAX", type=_numbers, default=[-60.0, 60.0], help="tilt range, degrees; default: -60,60 "
        "(--tilts=-60,60)")  # fmt: skip
    add_tilts(add)
    add_optics(add)
    add_contrast(add, automatic=True)
    add("--iterations", metavar="N", type=int, default=3, help="alignments; 0 averages the poses as listed; default: 3")
    add("--search", choices=["auto", "global", "local"], default="auto", help="first alignment: all orientations, or "
        "around those listed; default: auto, local where every pick has an orientation")  # fmt: skip
    add("--reference", metavar="[CLASS=]MAP", action="append", default=[], help="map that the first alignment starts "
        "from, both halves; default: each half's own average in the listed orientations")  # fmt: skip
    add("--start-resolution", metavar="ANGSTROM", type=float, default=60.0, help="low-pass of such a map; default: 60")
    add("--angle-step", metavar="DEG", type=float, default=15.0, help="step of the global search; default: 15")
    add("--local-angle", metavar="DEG", type=float, default=6.0, help="first step of the local search; default: 6")
    add("--shift", metavar="VOX", type=float, default=4.0, help="largest shift from the pick, each axis; default: 4")
    add("--keep", metavar="SHARE", type=fraction, default=1.0, help="share of the particles averaged, best score first; "
        "default: 1")  # fmt: skip
    add("--symmetry", metavar="[CLASS=]GROUP", action="append", default=[], help="point group, such as C2, D7, O, I")
    add("--wiener", metavar="E", type=float, default=0.01, help="damping of what few views show; default: 0.01")
    add("--mask-threshold", metavar="SD", type=float, help="standard deviations of the surroundings above their mean; "
        "default: Otsu's threshold")  # fmt: skip
    add("--dilation", metavar="VOX", type=float, default=1.0, help="dilation of the mask; default: 1")
    add("--soft-edge", metavar="VOX", type=float, default=3.0, help="soft edge of mask_soft; default: 3")
    add(
        "--format", metavar="NAME", action="append", help="format of the particle lists, may be repeated; default: star"
    )
    add("--seed", metavar="N", type=int, default=0, help="seed of the split into halves; default: 0")
    add("--batch", metavar="N", type=int, default=16, help="boxes in memory at once; default: 16")
    add("--overwrite", action="store_true", help="begin anew, and replace files that are in DIR")
    return result


def _check(options: Namespace) -> None:
    from robpicker_jax.system.errors import InputError

    if options.reference and options.start_resolution < _SHARED_DETAIL_ANGSTROM:
        say(
            f"warning: both halves start from a map with detail to {options.start_resolution:g} Å, and agree on it whatever "
            f"the particles show: up to there the FSC says little (--start-resolution {_SHARED_DETAIL_ANGSTROM:g} or more)"
        )
    for flag, value, least in (
        ("--iterations", options.iterations, 0),
        ("--batch", options.batch, 1),
        ("--box", 8 if options.box is None else options.box, 8),
        ("--shift", options.shift, 0),
        ("--dilation", options.dilation, 0),
        ("--soft-edge", options.soft_edge, 0),
        ("--wiener", options.wiener, 0),
        ("--start-resolution", options.start_resolution, 1),
        ("--local-angle", options.local_angle, 0),
    ):
        if not value >= least:
            raise InputError(f"{value:g} is too small", where=flag, fix=f"give at least {least}")
    if len(options.tilts) != 2:
        raise InputError("two angles are needed", where="--tilts", fix="write --tilts=-60,60")


def _check_outputs(former: Mapping[str, Any], inputs: AveragingInputs, options: Namespace) -> None:
    """Refuse, before anything is averaged, to replace what is there; what the same averaging began is its own.

    Raises:
        InputError: a file exists and may not be replaced, or is an input.
    """
    from robpicker_jax.annotations.names import plain_name
    from robpicker_jax.averaging.files import SUMMARY, class_files
    from robpicker_jax.commands.averaging_inputs import list_files
    from robpicker_jax.datasets import tomograms_from
    from robpicker_jax.datasets.lists import files_read
    from robpicker_jax.system.outputs import check_outputs

    read = [files.volume_path for files in tomograms_from(options.tomo, annotations=False)]
    read += [file for path in options.picks for file in files_read(path)]
    maps = [text.rpartition("=")[2] for text in options.reference]
    jobs = [entry.job for entry in inputs.classes]
    files = {job: class_files(job.folder) + list_files(job.folder, options.format, inputs) for job in jobs}
    shared = [options.out / name for name in (SUMMARY, _PAGE, "montage.png", "fsc.png")]
    lists = [*(f"{plain_name(source.name)}_objl.xml" for source in inputs.sources), *former.get("lists", ())]
    shared += [options.out / _LISTS / Path(name).name for name in dict.fromkeys(lists)]
    own = [path for job in jobs if job.begun() for path in files[job]]
    check_outputs(
        [path for paths in files.values() for path in paths] + shared,
        inputs=[options.config, *read, *maps],
        overwrite=options.overwrite,
        own={*own, *(shared if any(job.begun() for job in jobs) else ())},
        fix="give --overwrite or another --out",
    )


def _former(options: Namespace) -> dict[str, Any]:
    """What an earlier averaging into the same folder wrote of all its classes; empty where there is none."""
    from robpicker_jax.averaging.files import SUMMARY
    from robpicker_jax.system.files import read_json_object

    path = options.out / SUMMARY
    return read_json_object(path) if path.is_file() else {}


def _check_classes(former: Mapping[str, Any], inputs: AveragingInputs, options: Namespace) -> None:
    """Refuse to replace the lists and pictures of more classes by those of fewer."""
    from robpicker_jax.system.errors import InputError

    now = [entry.job.name for entry in inputs.classes]
    others = [entry["class"] for entry in former.get("classes", ()) if entry["class"] not in now]
    if others and not options.overwrite:
        raise InputError(
            f"holds an averaging of {', '.join(others)} too, which its lists and pictures would no longer show",
            where=options.out,
            fix="name these classes as well (what is done is not done again), give another --out, or --overwrite",
        )


def _say_plan(inputs: AveragingInputs) -> None:
    for entry in inputs.classes:
        job, settings = entry.job, entry.job.settings
        dropped = f", {entry.left_out} left out at the edge" if entry.left_out else ""
        if entry.repeated:
            dropped += f", {entry.repeated} nearer than half a radius to another left out"
        start = "listed poses" if job.reference is None else "the reference"
        contrast = "bright" if settings.sign > 0 else "dark"
        say(
            f"{job.name}: {len(job.particles)} particles{dropped}; box {settings.edge}, {contrast} particles, "
            f"{settings.iterations} iterations, the first {settings.first} from {start}, {settings.symmetry}"
        )
        done = job.finished_iterations()
        if done:
            say(f"{job.name}: {min(done, settings.iterations + 1)} of {settings.iterations + 1} averages are there")
    say(f"memory: at most {inputs.peak_bytes / 2**20:.0f} MiB beside the program itself")


def _write_class(entry: ClassInputs, result: AverageResult, inputs: AveragingInputs, options: Namespace) -> None:
    from robpicker_jax.averaging.files import SUMMARY, summary, write_fsc, write_maps
    from robpicker_jax.commands.averaging_inputs import write_lists
    from robpicker_jax.reporting.averages import write_average_figures
    from robpicker_jax.system.files import write_text

    job = entry.job
    write_maps(job.folder, result, job.voxel_size_angstrom)
    write_fsc(job.folder, result.fsc)
    write_average_figures(job.folder, [_view(job.name, result)])
    names = [source.name for source in job.sources]
    write_lists(job.folder, result.particles.particles(names, entry.label, job.name), options.format, inputs)
    figures = summary(job.name, result, job.settings, job.voxel_size_angstrom, entry.left_out, entry.repeated)
    write_text(job.folder / SUMMARY, json.dumps(figures, indent=1) + "\n")
    if warning := result.mask.warning():
        say(f"warning: {job.name}: {warning}")


def _view(name: str, result: AverageResult) -> Any:
    from robpicker_jax.reporting.averages import AverageView

    fsc = result.fsc
    return AverageView(
        name=name,
        filtered=result.shown,
        mask=result.mask.sharp,
        voxel_size_angstrom=fsc.voxel_size_angstrom,
        particles=int(result.particles.kept.sum()),
        fsc=fsc.corrected,
        unmasked=fsc.unmasked,
        randomised=fsc.randomised,
        resolution_angstrom=fsc.resolution_angstrom(0.143),
        resolution_half_angstrom=fsc.resolution_angstrom(0.5),
        warning=result.mask.warning(),
    )


def _write_all(
    inputs: AveragingInputs, results: Sequence[AverageResult], options: Namespace, former: Mapping[str, Any]
) -> None:
    """What concerns all classes: one list for each tomogram, the summary, the montage."""
    from robpicker_jax.annotations import Particles
    from robpicker_jax.averaging.files import SUMMARY, summary
    from robpicker_jax.commands.averaging_inputs import write_tomogram_lists
    from robpicker_jax.reporting.averages import write_average_figures, write_average_page
    from robpicker_jax.system.files import write_text

    entries = list(zip(inputs.classes, results, strict=True))
    names = [source.name for source in inputs.sources]
    everything = Particles.concatenate(
        [result.particles.particles(names, entry.label, entry.job.name) for entry, result in entries]
    )
    folder = options.out / _LISTS
    lists = [path.name for path in write_tomogram_lists(folder, everything, inputs)]
    for stale in set(former.get("lists", ())) - set(lists):
        (folder / Path(stale).name).unlink(missing_ok=True)
    views = [_view(entry.job.name, result) for entry, result in entries]
    write_average_figures(options.out, views, overall=True)
    write_average_page(options.out / _PAGE, views)
    classes = [
        summary(
            entry.job.name, result, entry.job.settings, entry.job.voxel_size_angstrom, entry.left_out, entry.repeated
        )
        for entry, result in entries
    ]
    write_text(options.out / SUMMARY, json.dumps({"classes": classes, "lists": lists}, indent=1) + "\n")


def _report(inputs: AveragingInputs, results: Sequence[AverageResult], out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in ("class", "particles", "averaged", "FSC 0.143, Å", "FSC 0.5, Å", "mask, voxels", "over weight"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for entry, result in zip(inputs.classes, results, strict=True):
        limits = [result.fsc.resolution_angstrom(at) for at in (0.143, 0.5)]
        ratio = result.mask.ratio
        table.add_row(
            entry.job.name,
            str(len(result.particles)),
            str(int(result.particles.kept.sum())),
            *(f"{limit:.1f}" if limit < float("inf") else "none" for limit in limits),
            str(int(result.mask.sharp.sum())),
            "" if ratio is None else f"{ratio:.2f}",
        )
    console.print(table)
    say(f"averages in {out}, report in {out / _PAGE}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 5,4.5") from None
