"""`convert`: particle lists from one format to another."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from robpicker_jax.commands.cli import ArgumentParser, console, parser, positive_number
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Format, Particles
    from robpicker_jax.annotations.conversion import Source

_DESCRIPTION = """\
Rewrite particle lists in another format; several INs, such as one for each class, become one list. Says what the files
left open and was assumed, and what the target format cannot hold, before anything is written; --dry-run stops there.

Positions become voxels of the tomogram named by --voxel-size and --tomogram-shape, or by --volume, whose header says
both; formats in angstrom, in unbinned pixels or measured from the centre need them. Nothing is resampled.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read, report what is assumed and lost, write."""
    options = _parsed(arguments or ())
    from robpicker_jax.annotations import conversion

    target = _target(options)
    context = _context(options)
    reading, writing = _format_options(options, target, context)
    sources = [
        conversion.read_source(path, options.from_format, how)
        for path, how in zip(options.sources, reading, strict=True)
    ]
    source = conversion.joined(sources, options.classes, options.class_labels)
    particles = _chosen(source, options)
    _check_table(particles, options)
    files = _files(particles, target, options)
    _report(source, particles, target, context["voxel_size_angstrom"])
    _check_overwriting(files, target, options, writing)
    if options.dry_run:
        console.print("dry run: nothing was written")
        return 0
    _write(files, target, writing)
    return 0


def _parsed(arguments: Sequence[str]) -> Namespace:
    """The arguments; the last of the files is OUT, wherever options stand between them."""
    command = _parser()
    options = command.parse_intermixed_args(list(arguments))
    if len(options.files) < 2:
        command.error("IN and OUT are needed")
    *options.sources, options.target = options.files
    options.source = options.sources[0]
    return options


def _parser() -> ArgumentParser:
    from robpicker_jax.annotations.conversion import parse_class_labels

    result = parser("convert", _DESCRIPTION, epilog=_formats_help())
    add = result.add_argument
    add(
        "files",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="IN … OUT: one or more particle lists (or folders of copick projects), such as one for each class, "
        "and the file to write; with --split a folder",
    )
    add(
        "--class",
        metavar="NAME",
        dest="classes",
        action="append",
        default=[],
        help="class of all particles of an IN that names none; once for all, or once for each IN in their order",
    )
    add("--from", metavar="FORMAT", dest="from_format", help="format of IN, where the file does not tell")
    add("--to", metavar="FORMAT", dest="to_format", help="format of OUT, where its suffix does not tell")
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size of the tomogram")
    add("--tomogram-shape", metavar="X,Y,Z", type=shape, help="size of the tomogram, voxels")
    add("--volume", metavar="FILE", type=Path, help="the tomogram, for its voxel size, shape and origin")
    add("--binning", metavar="B", type=positive_number, help="pixels of IN per voxel of the tomogram")
    add("--to-binning", metavar="B", type=positive_number, help="pixels of OUT per voxel of the tomogram")
    add(
        "--tomograms-table",
        metavar="STAR",
        type=Path,
        help="RELION's tomograms table, for centred coordinates of IN or OUT",
    )
    add("--class-labels", metavar="NAME=LABEL,…", type=parse_class_labels, help="label of each class name")
    add(
        "--tomogram-name",
        metavar="NAME",
        help="the particles' tomogram, where IN does not name it or names it otherwise",
    )
    add(
        "--select",
        metavar="NAME",
        help="take the particles of this tomogram only, whatever folder and suffix IN gives it",
    )
    add("--select-class", metavar="NAME", help="take the particles of this class only, by its name or its label")
    add("--name-pattern", metavar="REGEX", help="what of the names in IN is the tomogram's name, such as 'rec_(.*)'")
    add("--split", action="store_true", help="write one list for each tomogram into the folder OUT (needs --to)")
    add("--from-option", metavar="NAME=VALUE", action="append", default=[], help="further option of reading; repeat")
    add("--to-option", metavar="NAME=VALUE", action="append", default=[], help="further option of writing; repeat")
    add("--dry-run", action="store_true", help="say what would be assumed and lost, write nothing")
    add("--overwrite", action="store_true", help="replace what is there")
    return result


def _formats_help() -> str:
    """The formats, and what each of their options means."""
    from robpicker_jax.annotations import FORMATS

    width = max(map(len, FORMATS))
    lines = ["formats:"]
    lines += [f"  {name:<{width}}  {' '.join(entry.suffixes)}  {entry.title}" for name, entry in FORMATS.items()]
    texts = {option: text for entry in FORMATS.values() for option, text in entry.options.items()}
    width = max(map(len, texts))
    lines.append("options of the formats, for --from-option and --to-option:")
    for option, text in texts.items():
        owners = [name for name, entry in FORMATS.items() if option in entry.options]
        lines.append(f"  {option:<{width}}  {text} ({', '.join(owners)})")
    return "\n".join(lines)


def _target(options: Namespace) -> Format:
    """The format to write."""
    from robpicker_jax.annotations import FORMATS
    from robpicker_jax.annotations.registry import format_of
    from robpicker_jax.system.errors import InputError

    if options.split and options.to_format is None:
        raise InputError("needs the format to write", where="--split", fix=f"--to, one of {', '.join(FORMATS)}")
    return format_of(options.target, options.to_format, "write")


def _format_options(
    options: Namespace, target: Format, context: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The arguments of reading each IN and of writing OUT; a tomograms table goes to those whose format takes one.

    Raises:
        InputError: a tomograms table that no format takes.
    """
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.annotations.registry import format_of
    from robpicker_jax.system.errors import InputError

    how: dict[str, Any] = {**context, "class_labels": options.class_labels, "binning": options.binning}
    reading = [dict(how) for _ in options.sources]
    writing: dict[str, Any] = {**context, "binning": options.to_binning}
    if options.tomograms_table is not None:
        for path in options.sources:
            if not path.exists():
                raise InputError("no such file", where=path)
        formats = [format_of(path, options.from_format) for path in options.sources]
        takers = [*((entry.reading_options, how) for entry, how in zip(formats, reading, strict=True))]
        sides = [how for takes, how in (*takers, (target.writing_options, writing)) if "tomograms" in takes]
        if not sides:
            raise InputError(
                f"neither {formats[0].title} nor {target.title} takes a tomograms table",
                where="--tomograms-table",
                fix="leave it out; --volume tells size and voxel size",
            )
        for arguments in sides:
            arguments["tomograms"] = options.tomograms_table
    return (
        [_without_none(how) | parse_options(options.from_option, "--from-option") for how in reading],
        _without_none(writing) | parse_options(options.to_option, "--to-option"),
    )


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _context(options: Namespace) -> dict[str, Any]:
    """Voxel size, shape and origin of the tomogram, as given and as the volume's header says.

    Raises:
        InputError: the two contradict each other.
    """
    from robpicker_jax.annotations.stated import agreed_length, agreed_shape
    from robpicker_jax.volumes import open_volume

    voxel_size, size, origin = options.voxel_size, options.tomogram_shape, None
    if options.volume is not None:
        with open_volume(options.volume) as reader:
            header = str(options.volume)
            voxel_size = agreed_length([("--voxel-size", voxel_size), (header, reader.voxel_size_angstrom)])
            size = agreed_shape([("--tomogram-shape", size), (header, reader.shape_zyx)])
            origin = reader.origin_angstrom
    return {"voxel_size_angstrom": voxel_size, "shape_zyx": size, "volume_origin_angstrom": origin}


def _check_table(particles: Particles, options: Namespace) -> None:
    """Refuse a shape that the tomograms table contradicts, unless the voxels are said not to be the table's.

    Raises:
        InputError: with what both say.
    """
    from robpicker_jax.annotations.relion_tables import read_tomograms
    from robpicker_jax.annotations.stated import check_table_shape

    stated = options.tomogram_shape
    if options.tomograms_table is not None and stated is not None and options.binning is None:
        check_table_shape(read_tomograms(options.tomograms_table), particles.tomograms, "--tomogram-shape", stated)


def _chosen(source: Source, options: Namespace) -> Particles:
    """The particles to write: with classes and tomograms named by the options, of one tomogram or class where --select or
    --select-class say so.

    Raises:
        InputError: one name for several tomograms, or a tomogram or class that has no particles.
    """
    import numpy as np

    from robpicker_jax.annotations.conversion import named_classes, of_class
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.system.errors import InputError, located

    rule = NameRule.of(options.name_pattern)
    particles = named_classes(source.particles, options.class_labels)
    if options.select_class is not None:
        with located(options.source):
            particles = of_class(particles, options.select_class)
    listed = particles.tomograms
    if options.tomogram_name is not None:
        several = listed is not None and len(set(listed.tolist())) > 1
        if several and options.select is None:
            raise InputError("IN names several tomograms", where="--tomogram-name", fix="leave it out, or add --select")
        particles = particles.with_(tomograms=[options.tomogram_name] * len(particles))
    elif rule.pattern is not None and listed is not None:
        with located(options.source):
            particles = particles.with_(tomograms=[rule.written(name) for name in listed.tolist()])
    if options.select is None:
        return particles
    listed = np.zeros(0, np.str_) if listed is None else listed
    named = list(dict.fromkeys(listed.tolist()))
    with located(options.source):
        chosen = rule.matching(options.select, named)
    if not chosen:
        names = ", ".join(sorted(named)[:5]) or "none"
        raise InputError(f"no particle of tomogram {options.select}", where=options.source, fix=f"it names {names}")
    return particles.select(np.isin(listed, chosen))


def _files(particles: Particles, target: Format, options: Namespace) -> dict[Path, Particles]:
    """Which particles are written to which file."""
    from robpicker_jax.annotations import conversion

    if not options.split:
        conversion.check_mixture(particles, target, options.source)
        return {options.target: particles}
    parts = conversion.by_tomogram(particles, options.source)
    return {options.target / f"{name}{target.suffixes[0]}": part for name, part in parts.items()}


def _report(source: Source, particles: Particles, target: Format, voxel_size_angstrom: float | None) -> None:
    """Print what the target loses and what is assumed of the source."""
    from robpicker_jax.annotations.conversion import fate

    table = Table("", "particles with it", "in the new list", title=f"{source.fmt.title} → {target.title}")
    for column in fate(particles, target, voxel_size_angstrom):
        note = f" ({column.note})" if column.note else ""
        becomes = "written anew" if column.anew else "kept" if column.kept else "LOST"
        table.add_row(column.name, str(column.count), becomes + note)
    console.print(table)
    for sentence in target.stand_ins(particles):
        say(sentence)
    for sentence in source.assumptions:
        say(f"assumed: {sentence}")


def _check_overwriting(
    files: dict[Path, Particles], target: Format, options: Namespace, writing: dict[str, Any]
) -> None:
    """Refuse to replace a file, unless --overwrite allows it, and ever to replace an input."""
    from robpicker_jax.annotations.numbering import own_key
    from robpicker_jax.annotations.registry import written_files
    from robpicker_jax.system.outputs import check_outputs

    keys = [own_key(path) for path in files] if target.numbered else []  # written, or removed where none is needed
    lists = [file for path, part in files.items() for file in written_files(target, path, part, writing)]
    further = [str(value) for value in writing.values() if isinstance(value, str | Path)]
    inputs = [*options.sources, options.volume, options.tomograms_table, *further]
    check_outputs([*lists, *keys], inputs=inputs, overwrite=options.overwrite)


def _write(files: dict[Path, Particles], target: Format, writing: dict[str, Any]) -> None:
    """Write the lists, and beside them which number is which tomogram where a format needs it."""
    from robpicker_jax.annotations import write_annotations
    from robpicker_jax.annotations.numbering import write_key
    from robpicker_jax.system.notes import gathered_notes

    for path, part in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with gathered_notes():  # the report has said them
            write_annotations(path, part, fmt=target.name, **writing)
        say(f"{path}: {len(part)} particles")
        key = write_key(target, path, part.tomograms)
        if key is not None:
            say(f"{key}: which number is which tomogram")


def shape(text: str) -> tuple[int, int, int]:
    """`X,Y,Z` as (z, y, x)."""
    x, y, z = (int(number) for number in text.split(","))
    if min(x, y, z) < 1:
        raise ValueError(text)
    return z, y, x
