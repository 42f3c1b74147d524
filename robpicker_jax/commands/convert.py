"""`convert`: particle lists from one format to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from robpicker_jax.commands.cli import console, parser

if TYPE_CHECKING:
    from robpicker_jax.annotations.conversion import Source

_DESCRIPTION = """\
Rewrite a particle list in another format. Says what the file left open and was assumed, and what the target format
cannot hold, before anything is written; --dry-run stops there.

Positions become voxels of the tomogram named by --voxel-size and --tomogram-shape, or by --volume, whose header says
both; formats in angstrom, in unbinned pixels or measured from the centre need them. Nothing is resampled.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    from robpicker_jax.annotations.conversion import formats_table, parse_class_labels, parse_options

    rows = formats_table()
    width = max(len(row[0]) for row in rows)
    epilog = "formats (options of reading, for --from-option):\n" + "\n".join(
        f"  {name:<{width}}  {suffixes}  {title}" + (f"  [{known}]" if known else "")
        for name, suffixes, title, known in rows
    )
    arguments_of = parser("convert", _DESCRIPTION, epilog=epilog)
    add = arguments_of.add_argument
    add("source", metavar="IN", type=Path, help="particle list, or folder of a copick project")
    add("target", metavar="OUT", type=Path, help="file to write; with --split a folder")
    add("--from", metavar="FORMAT", dest="from_format", help="format of IN, where the file does not tell")
    add("--to", metavar="FORMAT", dest="to_format", help="format of OUT, where its suffix does not tell")
    add("--voxel-size", metavar="ANGSTROM", type=float, help="voxel size of the tomogram")
    add("--tomogram-shape", metavar="X,Y,Z", type=shape, help="size of the tomogram, voxels")
    add("--volume", metavar="FILE", type=Path, help="the tomogram, for its voxel size and shape")
    add("--binning", metavar="B", type=float, help="pixels of IN per voxel of the tomogram")
    add("--to-binning", metavar="B", type=float, help="pixels of OUT per voxel of the tomogram")
    add("--tomograms-table", metavar="STAR", type=Path, help="RELION's tomograms table, for centred coordinates")
    add("--class-labels", metavar="NAME=LABEL,…", type=parse_class_labels, help="label of each class name")
    add("--tomogram-name", metavar="NAME", help="the particles' tomogram, where IN does not name it")
    add("--select", metavar="NAME", help="take the particles of this tomogram only")
    add("--split", action="store_true", help="write one list for each tomogram into the folder OUT (needs --to)")
    add("--from-option", metavar="NAME=VALUE", action="append", default=[], help="further option of reading; repeat")
    add("--to-option", metavar="NAME=VALUE", action="append", default=[], help="further option of writing; repeat")
    add("--dry-run", action="store_true", help="say what would be assumed and lost, write nothing")
    add("--overwrite", action="store_true", help="replace what is there")
    options = arguments_of.parse_args(list(arguments or ()))

    from robpicker_jax.annotations import FORMATS, conversion, write_annotations
    from robpicker_jax.annotations.numbering import key_path, needs_key, write_key
    from robpicker_jax.annotations.registry import format_of
    from robpicker_jax.system.errors import InputError

    if options.split and options.to_format is None:
        raise InputError("needs the format to write", where="--split", fix=f"--to, one of {', '.join(FORMATS)}")
    target = format_of(options.target, options.to_format, "write")
    context = _context(options)
    reading: dict[str, Any] = {**context, "class_labels": options.class_labels, "binning": options.binning}
    reading["tomograms"] = options.tomograms_table
    reading = {k: v for k, v in reading.items() if v is not None} | parse_options(options.from_option, "--from-option")
    writing: dict[str, Any] = {**context, "binning": options.to_binning}
    if "tomograms" in target.arguments("write"):
        writing["tomograms"] = options.tomograms_table
    writing = {k: v for k, v in writing.items() if v is not None} | parse_options(options.to_option, "--to-option")

    source = conversion.read_source(options.source, options.from_format, reading)
    particles = conversion.named_classes(source.particles, options.class_labels)
    if options.tomogram_name is not None:
        if particles.tomograms is not None and options.select is None:
            raise InputError("IN names its tomograms", where="--tomogram-name", fix="leave it out, or add --select")
        particles = particles.with_(tomograms=[options.tomogram_name] * len(particles))
    if options.select is not None:
        names = source.particles.tomograms
        chosen = [] if names is None else [name == options.select for name in names.tolist()]
        if not any(chosen):
            listed = "none" if names is None else ", ".join(sorted(set(names.tolist()))[:5])
            raise InputError(
                f"no particle of tomogram {options.select}", where=options.source, fix=f"it names {listed}"
            )
        particles = particles.select(chosen)

    if options.split:
        suffix = target.suffixes[0]
        parts = conversion.by_tomogram(particles, options.source)
        files = {options.target / f"{name}{suffix}": part for name, part in parts.items()}
    else:
        conversion.check_mixture(particles, target, options.source)
        files = {options.target: particles}
    console.print(_table(source, conversion.fate(particles, target), target.title))
    for sentence in source.assumptions:
        console.print(f"assumed: {sentence}", highlight=False, soft_wrap=True)
    keys = [key_path(path) for path, part in files.items() if target.numbered and needs_key(part.tomograms)]
    taken = [path for path in (*files, *keys) if path.exists() and (not path.is_dir() or any(path.iterdir()))]
    if taken and not options.overwrite:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise InputError(f"exists{more}", where=taken[0], fix="--overwrite replaces it")
    if options.dry_run:
        console.print("dry run: nothing was written")
        return 0
    for path, part in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_annotations(path, part, fmt=target.name, **writing)
        console.print(f"{path}: {len(part)} particles", highlight=False, soft_wrap=True)
        key = write_key(path, part.tomograms) if target.numbered else None
        if key is not None:
            console.print(f"{key}: which number is which tomogram", highlight=False, soft_wrap=True)
    return 0


def _context(options: Any) -> dict[str, Any]:
    """Voxel size and shape of the tomogram, as given or from the volume's header."""
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import open_volume

    voxel_size, size = options.voxel_size, options.tomogram_shape
    if voxel_size is not None and not voxel_size > 0:
        raise InputError("must be positive", where="--voxel-size")
    if options.volume is not None:
        with open_volume(options.volume) as reader:
            voxel_size, size = voxel_size or reader.voxel_size_angstrom, size or reader.shape_zyx
    return {"voxel_size_angstrom": voxel_size, "shape_zyx": size}


def _table(source: Source, columns: Sequence[Any], title: str) -> Table:
    table = Table("", "particles with it", "in the new list", title=f"{source.fmt.title} → {title}")
    for column in columns:
        note = f" ({column.note})" if column.note else ""
        table.add_row(column.name, str(column.count), ("kept" if column.kept else "LOST") + note)
    return table


def shape(text: str) -> tuple[int, int, int]:
    """`X,Y,Z` as (z, y, x)."""
    x, y, z = (int(number) for number in text.split(","))
    if min(x, y, z) < 1:
        raise ValueError(text)
    return z, y, x
