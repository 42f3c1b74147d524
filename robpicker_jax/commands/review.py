"""`review`: pages on which lists of particles are reviewed, and the lists that the decisions leave."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, parser, positive_number
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.models.trained_model import ModelCard
    from robpicker_jax.reporting.data import SpeciesInfo
    from robpicker_jax.reviewing import ReviewList
    from robpicker_jax.volumes import VolumeReader

_DESCRIPTION = """\
Write a page on which picks are reviewed: three sections through each tomogram with the picks in them, to accept, reject,
reclass and add particles, offline, in any browser. The page saves lists, or a file of decisions; --apply carries these
out on the lists that were reviewed, with all their columns. docs/review.md shows the loop from picks to a better model.

  robpicker review --workdir RUN --picks PICKS --out REVIEW TOMO…
  robpicker review --apply DECISIONS.json --picks PICKS --out LISTS
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(list(arguments or ()))
    from robpicker_jax.system.errors import InputError

    if options.apply:
        if options.tomograms:
            raise InputError("takes no tomograms", where="--apply", fix="leave them out")
        _apply(options)
        return 0
    if not options.tomograms:
        raise InputError("no tomogram", where="review", fix="name volume files or folders of them, or give --apply")
    _write_pages(options)
    return 0


def _parser() -> ArgumentParser:
    result = parser("review", _DESCRIPTION)
    add = result.add_argument
    add("tomograms", metavar="TOMO", nargs="*", help="volume files and folders of them")
    add("--picks", metavar="DIR_OR_FILE", type=Path, required=True, help="the lists; or the audit.csv of an audit")
    add("--out", metavar="DIR", type=Path, required=True, help="where to write")
    add("--workdir", metavar="PATH", type=Path, help="training run, or model.rpk: species and their radii are its own")
    add("--species", metavar="NAME:R,…", help="instead: species in the order of their labels, with radii in Å")
    add(
        "--apply", metavar="FILE", type=Path, action="append", help="write the lists that these decisions leave; repeat"
    )
    add(
        "--lists",
        metavar="DIR_OR_FILE",
        type=Path,
        help="with --apply, of an audit: the lists that were audited, whose columns are kept",
    )
    add("--format", metavar="NAME", default="xml", help="with --apply: format of the lists; default: xml")
    add("--accepted-only", action="store_true", help="with --apply: leave out what nobody decided on")
    add("--picks-format", metavar="NAME", help="format of the lists, where their suffix does not tell")
    add("--picks-option", metavar="NAME=VALUE", action="append", default=[], help="how the lists are read; repeat")
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size, where headers do not tell it")
    add("--overwrite", action="store_true", help="replace what is in DIR")
    return result


@dataclass(frozen=True)
class _Opened:
    """A tomogram that is reviewed, its header read."""

    name: str
    reader: VolumeReader
    voxel_size_angstrom: float | None


def _write_pages(options: argparse.Namespace) -> None:
    """One page for up to `MAX_TOMOGRAMS` tomograms."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.datasets import tomograms_from
    from robpicker_jax.picking.agreement import voxel_size_of
    from robpicker_jax.reporting.data import Command
    from robpicker_jax.reporting.review_page import page_paths, reviewed_view, write_review_page
    from robpicker_jax.reporting.viewer import MAX_TOMOGRAMS
    from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.volumes import open_volume

    card = _card(options)
    trained = None if card is None else card.voxel_size_angstrom
    opened = []
    for files in tomograms_from(options.tomograms, annotations=False):
        reader = open_volume(files.volume_path)
        opened.append(_Opened(files.name, reader, voxel_size_of(reader, options.voxel_size or trained, trained)))
    species = _species(options, card, opened)
    tomograms = [ReviewedTomogram(item.name, item.voxel_size_angstrom, item.reader.shape_zyx) for item in opened]
    lists = review_lists(
        options.picks,
        tomograms,
        [entry.name for entry in species],
        options=parse_options(options.picks_option, "--picks-option"),
        fmt=options.picks_format,
    )
    pages = [slice(first, first + MAX_TOMOGRAMS) for first in range(0, len(opened), MAX_TOMOGRAMS)]
    paths = page_paths(options.out, "review", len(opened))
    check_outputs(paths, inputs=[options.picks, *(item.reader.path for item in opened)], overwrite=options.overwrite)
    source = options.workdir or "RUN"
    places = " ".join(shlex.quote(str(path)) for path in options.tomograms)
    command = Command(f"robpicker pick --workdir {shlex.quote(str(source))} --out PICKS", after=places)
    if any(given.suggestions is not None for given in lists):
        command = Command(f"robpicker audit --workdir {shlex.quote(str(source))} --out AUDIT", "--min-score", "--apply")
    title = f"Review: {options.picks.resolve().name}"
    for path, part in zip(paths, pages, strict=True):
        views = []
        for item, given in zip(opened[part], lists[part], strict=True):
            with item.reader:
                views.append(reviewed_view(item.name, item.reader, given.particles, item.voxel_size_angstrom))
        subtitle = ", ".join(view.name for view in views)
        write_review_page(path, title, subtitle, species, views, command)
        say(f"page: {path}")


def _card(options: argparse.Namespace) -> ModelCard | None:
    """The card of the model that --workdir names; None where --species is given.

    Raises:
        InputError: neither or both are given, or no model is there.
    """
    from robpicker_jax.system.errors import InputError

    if (options.workdir is None) == (options.species is None):
        raise InputError("give one of --workdir and --species", where="review", fix="such as --species ribosome:150")
    if options.workdir is None:
        return None
    from robpicker_jax.training.export import load_trained_model

    return load_trained_model(options.workdir).card


def _species(options: argparse.Namespace, card: ModelCard | None, opened: Sequence[_Opened]) -> list[SpeciesInfo]:
    """The species with radii in voxels of the tomograms: a model's, or those of --species.

    Raises:
        InputError: a radius or a voxel size that is not known, or tomograms of different voxels.
    """
    from robpicker_jax.picking.agreement import agrees
    from robpicker_jax.proposal.species import parsed
    from robpicker_jax.reporting.data import SpeciesInfo
    from robpicker_jax.system.errors import InputError

    sizes = [item.voxel_size_angstrom for item in opened if item.voxel_size_angstrom is not None]
    for item in opened:
        if sizes and not agrees(item.voxel_size_angstrom, sizes[0]):
            what = f"voxels of {item.voxel_size_angstrom:.4g} Å, and others of {sizes[0]:.4g} Å"
            raise InputError(what, where=item.reader.path, fix="review those of one voxel size at a time")
    size = sizes[0] if sizes else None
    if card is not None:
        factor = 1.0 if size is None or card.voxel_size_angstrom is None else card.voxel_size_angstrom / size
        return [SpeciesInfo(s.name, s.radius_vox * factor, s.molecular_weight_kda) for s in card.data.species]
    if size is None:
        raise InputError("the voxel size is not known", where=opened[0].reader.path, fix="give --voxel-size")
    found = []
    for name, radius in parsed(options.species).items():
        if radius is None:
            raise InputError(f"{name} has no radius", where="--species", fix=f"such as {name}:150")
        found.append(SpeciesInfo(name, radius / size))
    return found


def _apply(options: argparse.Namespace) -> None:
    """Carry decisions out on the lists that they were made on."""
    from robpicker_jax.annotations import FORMATS, write_annotations
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.reviewing import read_decisions
    from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.outputs import check_outputs

    if options.format not in FORMATS:
        raise InputError(f"unknown format {options.format!r}", where="--format", fix=f"one of {', '.join(FORMATS)}")
    done: list[tuple[ReviewList, Any]] = []
    for path in options.apply:
        decisions = read_decisions(path)
        for entry in decisions.tomograms.values():
            if any(given.name == entry.name for given, _ in done):
                raise InputError(f"a second review of tomogram {entry.name}", where=path, fix="keep one of them")
            size = options.voxel_size or entry.voxel_size_angstrom
            tomogram = ReviewedTomogram(entry.name, size, entry.shape_zyx)
            how = parse_options(options.picks_option, "--picks-option")
            reading = {"options": how, "fmt": options.picks_format}
            of_picks = reading if options.lists is None else {}  # the audit's table needs no options
            (given,) = review_lists(options.picks, [tomogram], decisions.class_names, **of_picks)
            if options.lists is not None:
                (source,) = review_lists(options.lists, [tomogram], decisions.class_names, **reading)
                given = given.with_source(source.particles)
            review = entry.review_of(given)
            done.append((given, review.corrected(entry.min_scores, accepted_only=options.accepted_only)))
    if not done:
        raise InputError("no decision in it", where=options.apply[0], fix="review a tomogram, and save the decisions")
    format_ = FORMATS[options.format]
    paths = [options.out / format_.file_name(given.name) for given, _ in done]
    check_outputs(paths, inputs=[options.picks, options.lists, *options.apply], overwrite=options.overwrite)
    for path, (given, corrected) in zip(paths, done, strict=True):
        write_annotations(
            path,
            corrected,
            fmt=options.format,
            voxel_size_angstrom=given.voxel_size_angstrom,
            shape_zyx=given.shape_zyx,
        )
        say(f"{path}: {len(corrected)} particles; the list that was reviewed has {len(given.particles)}")
