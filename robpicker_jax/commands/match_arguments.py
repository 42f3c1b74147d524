"""The arguments of `match`, and the templates and settings that they describe."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from robpicker_jax.commands.cli import ArgumentParser, parser, positive_number
from robpicker_jax.commands.optics_arguments import (
    add_contrast,
    add_optics,
    add_tilts,
    positive,
    tilt_scheme,
    transfer_of,
)
from robpicker_jax.system.errors import InputError, located

if TYPE_CHECKING:
    from robpicker_jax.matching import Extraction, MatchSettings, Template

T = TypeVar("T")

DESCRIPTION = """\
Find particles by template matching: DIR/{name}.{xml,star,csv} with classes, scores and orientations, and with --maps
the score and angle maps DIR/{name}_{class}_{score,angle}.mrc. Several templates give several classes.

A template is an MRC map, or phantom:NAME, a species of the simulator. Tiles that are finished are kept, so that the same
command goes on where it was stopped. docs/matching.md says what is computed.
"""


def match_parser() -> ArgumentParser:
    """Parser of `match --template MAP[,MAP2] --out DIR TOMO…`."""
    result = parser("match", DESCRIPTION)
    add = result.add_argument
    add("tomograms", metavar="TOMO", nargs="*", help="volume files, or folders of them")
    add("--tomo", metavar="TOMO", nargs="+", default=[], help="the same, as a flag")
    add("--template", metavar="MAP[,MAP…]", required=True, help="density maps, or phantom:NAME; one class each")
    add("--out", metavar="DIR", type=Path, required=True, help="where to write")
    group = result.add_argument_group("template")
    add = group.add_argument
    add("--name", metavar="NAME[,…]", help="of the classes; default: the files' names")
    add(
        "--template-voxel",
        metavar="A",
        type=positive_number,
        help="voxel size of the maps, Å, where their headers do not say",
    )
    add(
        "--voxel-size",
        metavar="A",
        type=positive_number,
        help="voxel size of the tomograms, Å, where their headers do not say",
    )
    add("--diameter", metavar="A[,…]", help="of the particles, Å; default: what stands out of the map's background")
    add("--symmetry", metavar="G[,…]", default="C1", help="point groups: C1, C2, …, D2, …, T, O, I; default: C1. "
        "T and I have 2-fold axes along x, y and z, I as RELION's I2; RELION's T differs")  # fmt: skip
    add("--low-pass", metavar="A", type=float, help="resolution of the templates, Å; default: two voxels")
    add("--mask", metavar="KIND", default="sphere", help="sphere, or shape, which follows the map (exact search)")
    add("--soft", metavar="VOX", type=float, default=0.0, help="width of the mask's soft edge, voxels; default: 0")
    add_contrast(add)
    add("--no-centre", action="store_true", help="the map's box is centred already")
    group = result.add_argument_group("tilt series (about the y axis)")
    add = group.add_argument
    add("--tilts", metavar="MIN,MAX", default="-60,60", help="tilt range, degrees, or none; default: -60,60")
    add_tilts(add)
    add_optics(add)
    group = result.add_argument_group("search")
    add = group.add_argument
    add("--search", metavar="KIND", default="cascade", help="cascade, or exact: every angle at every voxel")
    add("--angle-step", metavar="DEG", type=float, default=10.0, help="between neighbouring angles; default: 10")
    add("--whiten", action="store_true", help="make the tomogram's spectrum flat; it is held in memory")
    add(
        "--noise-correction",
        action="store_true",
        help="subtract the scores of a phase-randomised template; twice the time, exact search",
    )
    add("--mirror", action="store_true", help="match the mirrored template too, as a check of the hand")
    add("--no-refine", action="store_true", help="keep the angles of the search")
    add("--tile", metavar="VOX", type=int, default=192, help="largest edge of a tile; default: 192")
    add("--memory-limit-gib", metavar="G", type=float, help="memory that turned templates and a tile may take; default: "
        "half of what is free")  # fmt: skip
    add("--workers", metavar="N", type=int, help="threads; default: one for each device, or CPU core")
    group = result.add_argument_group("picks")
    add = group.add_argument
    add("--distance", metavar="A[,…]", help="smallest distance of picks, Å; default: the particle's radius")
    add("--cutoff", metavar="KIND", default="extreme", help="extreme, gaussian (Rickgauer's; exact search) or none")
    add(
        "--false-positives", metavar="N", type=float, default=1.0, help="picks of pure noise that the cut-off lets pass"
    )
    add("--min-score", metavar="S", type=float, help="smallest score")
    add("--score-fraction", metavar="F", type=float, help="smallest score as a share of the best")
    add("--max-picks", metavar="N", type=int, help="most picks of a template in a tomogram")
    add("--tophat", action="store_true", help="only sharp peaks: no beads, no edges")
    add("--largest-first", action="store_true", help="where classes compete, the larger template decides")
    add("--clean", metavar="TOMO=LIST", help="an annotated tomogram, on which --precision is measured")
    add("--precision", metavar="P", type=float, help="smallest scores that show this precision on --clean")
    group = result.add_argument_group("output")
    add = group.add_argument
    add("--format", metavar="NAME", action="append", help="annotation format, may be repeated; default: xml, star, csv")
    add("--format-option", metavar="NAME=VALUE", action="append", default=[], help="option of writing; repeat")
    add("--maps", action="store_true", help="write score and angle maps, and the list of angles")
    add("--overwrite", action="store_true", help="replace picks of other settings")
    add("--name-pattern", metavar="REGEX", help="what of a volume's name is the tomogram's")
    return result


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that are too small, and options that need others.

    Raises:
        InputError: naming the flag.
    """
    for flag, value in (
        ("--template-voxel", options.template_voxel),
        ("--voxel-size", options.voxel_size),
        ("--low-pass", options.low_pass),
        ("--memory-limit-gib", options.memory_limit_gib),
        ("--false-positives", options.false_positives),
    ):
        if value is not None:
            positive(value, flag)
    for flag, value, least in (
        ("--soft", options.soft, 0),
        ("--tile", options.tile, 8),
        ("--workers", options.workers, 1),
        ("--score-fraction", options.score_fraction, 0),
        ("--max-picks", options.max_picks, 1),
    ):
        if value is not None and not least <= value < math.inf:
            raise InputError(f"{value:g} is too small", where=flag, fix=f"give at least {least}")
    if (options.precision is None) != (options.clean is None):
        raise InputError("--clean and --precision belong together", where="--precision", fix="give both or neither")
    if options.precision is not None and not 0 < options.precision < 1:
        raise InputError(f"must lie above 0 and below 1, got {options.precision:g}", where="--precision")


def listed(text: str | None, count: int, convert: Callable[[str], T], flag: str) -> list[T | None]:
    """A value for each template: as many as there are templates, or one for all.

    Raises:
        InputError: another number of values, or a value that is none.
    """
    if text is None:
        return [None] * count
    parts = text.split(",")
    if len(parts) not in (1, count):
        raise InputError(f"{len(parts)} values for {count} templates", where=flag, fix="give one, or one for each")
    try:
        values = [convert(part.strip()) for part in parts]
    except ValueError:
        raise InputError(f"{text!r} is no list of numbers", where=flag, fix="write 120 or 120,250") from None
    return [values[0]] * count if len(values) == 1 else list(values)


def tilt_range(text: str) -> tuple[float, float] | None:
    """`MIN,MAX` in degrees, or `none`.

    Raises:
        InputError: anything else.
    """
    if text.strip().lower() == "none":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r} is no tilt range", where="--tilts", fix="write -60,60 or none") from None
    if not -90 <= low < high <= 90:
        raise InputError(f"{text!r} is no tilt range", where="--tilts", fix="give two angles, the smaller first")
    return low, high


def match_settings(options: argparse.Namespace) -> MatchSettings:
    """The settings of the search."""
    from robpicker_jax.matching import MatchSettings
    from robpicker_jax.matching.building import free_memory_share
    from robpicker_jax.rotations import rotation_count

    limit = free_memory_share()
    if options.memory_limit_gib is not None:
        limit = int(options.memory_limit_gib * 2**30)
    with located("--angle-step"):
        rotation_count(options.angle_step)
    return MatchSettings(
        step_deg=options.angle_step,
        search=options.search,
        tilt_range_deg=tilt_range(options.tilts),
        scheme=tilt_scheme(options, tilt_range(options.tilts), transfer_of(options)),
        refine=not options.no_refine,
        noise_correction=options.noise_correction,
        whiten=options.whiten,
        mirror=options.mirror,
        largest_first=options.largest_first,
        tile_vox=options.tile,
        memory_bytes=limit,
        workers=options.workers,
    )


def templates(options: argparse.Namespace, voxel_size_angstrom: float) -> list[Template]:
    """The templates on the grid of the tomograms.

    Raises:
        InputError: a map that cannot be used, or values that do not fit.
    """
    from robpicker_jax.matching import TemplateRecipe
    from robpicker_jax.matching.building import PHANTOM, template_of
    from robpicker_jax.volumes import volume_stem

    sources = options.template.split(",")
    count = len(sources)
    names = listed(options.name, count, str, "--name")
    if count > 1 and len(set(names)) < count and options.name is not None:
        raise InputError("two classes of one name", where="--name", fix="give each template its own")
    diameters = [positive(d, "--diameter") for d in listed(options.diameter, count, float, "--diameter")]
    groups = listed(options.symmetry, count, str, "--symmetry")
    result = []
    for source, name, diameter, symmetry in zip(sources, names, diameters, groups, strict=True):
        recipe = TemplateRecipe(
            diameter_angstrom=diameter,
            low_pass_angstrom=options.low_pass,
            dark=options.contrast == "dark",
            mask=options.mask,
            soft_vox=options.soft,
            symmetry=symmetry or "C1",
            centre=not options.no_centre,
        )
        phantom = source.removeprefix(PHANTOM) if source.startswith(PHANTOM) else ""
        called = name or phantom or volume_stem(Path(source))
        result.append(
            template_of(source, called, recipe, voxel_size_angstrom, map_voxel_angstrom=options.template_voxel)
        )
    return result


def extractions(options: argparse.Namespace, made: Sequence[Template]) -> list[Extraction]:
    """How the picks of each template are extracted."""
    from robpicker_jax.matching import Extraction
    from robpicker_jax.matching.extraction import rim

    distances = [positive(d, "--distance") for d in listed(options.distance, len(made), float, "--distance")]
    if options.cutoff == "gaussian" and options.search != "exact":
        raise InputError("needs the deviation over angles", where="--cutoff gaussian", fix="give --search exact too")
    return [
        Extraction(
            radius_vox=template.diameter_vox / 2 if distance is None else distance / template.voxel_size_angstrom,
            cutoff=options.cutoff,
            false_positives=options.false_positives,
            min_score=options.min_score,
            score_fraction=options.score_fraction,
            max_picks=options.max_picks,
            tophat=options.tophat,
            edge_vox=rim(template.diameter_vox),
        )
        for template, distance in zip(made, distances, strict=True)
    ]
