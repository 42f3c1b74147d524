"""`review`: pages on which lists of particles are reviewed, and the lists that the decisions leave."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, parser, positive_number, split_overrides
from robpicker_jax.system.files import from_here
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.config import CopickConfig
    from robpicker_jax.models.trained_model import ModelCard
    from robpicker_jax.reporting.data import AfterReview
    from robpicker_jax.reviewing import ReviewList
    from robpicker_jax.reviewing.reading import ReviewedTomogram

_DESCRIPTION = """\
Write a page on which picks are reviewed: three sections through each tomogram with the picks in them, to accept, reject,
reclass and add particles, offline, in any browser. The page saves lists, or a file of decisions; --apply carries these
out on the lists that were reviewed, with all their columns. docs/review.md shows the loop from picks to a better model.

  robpicker review --workdir RUN --picks PICKS --out REVIEW TOMO…
  robpicker review --apply DECISIONS.json --picks PICKS --out LISTS

TOMO, --picks and, with --apply, --out may be the copick_config.json of a copick project: its runs that have picks are
shown, and the lists go into its overlay as those of user review, session 1.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    rest, overrides = split_overrides(list(arguments or ()), None)
    options = _parser().parse_args(rest)
    from robpicker_jax.system.errors import InputError

    if options.apply:
        if options.tomograms:
            raise InputError("takes no tomograms", where="--apply", fix="leave them out")
        if overrides:
            raise InputError("has no part in it", where=overrides[0].partition("=")[0], fix="leave it out")
        _apply(options)
        return 0
    if not options.tomograms:
        raise InputError("no tomogram", where="review", fix="name volume files or folders of them, or give --apply")
    _write_pages(options, overrides)
    return 0


def _parser() -> ArgumentParser:
    result = parser(
        "review",
        _DESCRIPTION,
        epilog="dotted flags of data.copick say which tomograms of a copick project are shown, such as "
        "--data.copick.tomo_type denoised",
    )
    add = result.add_argument
    add("tomograms", metavar="TOMO", nargs="*", help="volume files, folders of them, or a copick_config.json")
    add(
        "--picks",
        metavar="PATH",
        type=Path,
        required=True,
        help="the lists: a file, a folder, a copick_config.json; or the audit.csv of an audit",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="where to write; with --apply, also a copick_config.json",
    )
    add(
        "--workdir",
        "--model",
        metavar="PATH",
        type=Path,
        help="folder of a training run, a model's file, or the name of a model that ships with the package: species and "
        "their radii are its own",
    )
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
    add("--format", metavar="NAME", help="with --apply: format of the lists; default: xml, and copick into a project")
    add(
        "--format-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="with --apply: option of writing, such as user_id=ann of copick; repeat",
    )
    add("--accepted-only", action="store_true", help="with --apply: leave out what nobody decided on")
    add("--picks-format", metavar="NAME", help="format of the lists, where their suffix does not tell")
    add(
        "--picks-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="how the lists are read, such as user=ann of a copick project, where those of `pick` are read otherwise; repeat",
    )
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size, where headers do not tell it")
    add("--overwrite", action="store_true", help="replace what is in DIR")
    return result


def _write_pages(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """One page for up to `MAX_TOMOGRAMS` tomograms."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.commands.review_pages import (
        common_voxel_size,
        expected_of,
        lists_of,
        open_tomograms,
        pick_command,
        species_of_card,
        species_of_radii,
        write_pages,
    )
    from robpicker_jax.config import CopickConfig
    from robpicker_jax.picking.known_calibration import known_calibration
    from robpicker_jax.proposal.species import parsed
    from robpicker_jax.reporting.data import Command, decisions_file

    card = _card(options)
    section = _copick(CopickConfig() if card is None else card.data.copick, overrides)
    opened = open_tomograms(options.tomograms, section, options.voxel_size, card)
    size = common_voxel_size(opened)
    if card is not None:
        species = species_of_card(card, size)
    else:
        species = species_of_radii(parsed(options.species), size, "--species", "--voxel-size")
    reading = {"options": parse_options(options.picks_option, "--picks-option"), "fmt": options.picks_format}
    opened, lists = lists_of(options.tomograms, opened, options.picks, [entry.name for entry in species], **reading)
    command = pick_command(options.workdir, options.tomograms)
    if any(given.suggestions is not None for given in lists):
        source = shlex.quote(str(options.workdir or "RUN"))
        command = Command(f"robpicker audit --workdir {source} --out AUDIT", "--min-score", "--apply")
    title, after_review = f"Review: {options.picks.resolve().name}", _after_review(options)
    paths = write_pages(
        options.out,
        opened,
        lists,
        species,
        command,
        title=title,
        after_review=after_review,
        picks=options.picks,
        expected=expected_of({} if card is None else known_calibration(options.workdir, card)),
        overwrite=options.overwrite,
    )
    for path in paths:
        say(f"page: {path}")
    saved = [decisions_file(title, number) for number in range(1, len(paths) + 1)]
    say(
        f"next: open {'it' if len(paths) == 1 else 'them'} in a browser, decide, save the decisions, and where they were saved"
    )
    say(f"  {after_review.with_files(*saved)}")


def _after_review(options: argparse.Namespace) -> AfterReview:
    """The command that carries decisions on these lists out; of a project they go into it."""
    from robpicker_jax.datasets.copick_project import is_project
    from robpicker_jax.reporting.data import AfterReview

    out = str(options.picks) if is_project(options.picks) else "CORRECTED"
    reading = ["--picks", str(options.picks)]
    reading += ["--picks-format", options.picks_format] if options.picks_format else []
    reading += [word for option in options.picks_option for word in ("--picks-option", option)]
    return AfterReview(after=f" {shlex.join([*reading, '--out', out])}")


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


def _copick(section: CopickConfig, overrides: Sequence[str]) -> CopickConfig:
    """The section `data.copick` with what the command line overrides of it.

    Raises:
        InputError: another field of the configuration, or an impossible value.
    """
    from robpicker_jax.config import CopickConfig, apply_overrides, as_plain_values, validated
    from robpicker_jax.system.errors import InputError

    for override in overrides:
        if not override.startswith("data.copick."):
            key = override.partition("=")[0]
            raise InputError("review reads data.copick alone of the configuration", where=key, fix="leave it out")
    values = apply_overrides({"data": {"copick": as_plain_values(section)}}, overrides)
    return validated(CopickConfig, values["data"]["copick"], "data.copick")


def _apply(options: argparse.Namespace) -> None:
    """Carry decisions out on the lists that they were made on."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.commands.review_lists import carried_out, write_lists
    from robpicker_jax.reviewing.reading import review_lists

    reading = {"options": parse_options(options.picks_option, "--picks-option"), "fmt": options.picks_format}

    def list_of(tomogram: ReviewedTomogram, class_names: Sequence[str]) -> ReviewList:
        of_picks = reading if options.lists is None else {}  # the audit's table needs no options
        (given,) = review_lists(options.picks, [tomogram], class_names, **of_picks)
        if options.lists is None:
            return given
        (source,) = review_lists(options.lists, [tomogram], class_names, **reading)
        return given.with_source(source.particles)

    done = carried_out(
        options.apply, list_of, voxel_size_angstrom=options.voxel_size, accepted_only=options.accepted_only
    )
    paths = write_lists(
        options.out,
        done,
        options.format,
        options=parse_options(options.format_option, "--format-option"),
        inputs=[options.picks, options.lists, *options.apply],
        overwrite=options.overwrite,
    )
    for path, (given, corrected) in zip(paths, done, strict=True):
        say(f"{from_here(path)}: {len(corrected)} particles; the list that was reviewed has {len(given.particles)}")
