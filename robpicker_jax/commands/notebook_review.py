"""Reviewing picks from a notebook: the page on which a person decides, and the lists that the decisions leave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from robpicker_jax.annotations import Particles
from robpicker_jax.commands.notebook_model import Model, PathLike
from robpicker_jax.commands.review_lists import carried_out, write_lists
from robpicker_jax.commands.review_pages import (
    Opened,
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
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking.known_calibration import known_calibration
from robpicker_jax.reporting.data import AfterReview, Command
from robpicker_jax.reviewing import ReviewList
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.export import load_trained_model

Tomograms = PathLike | Sequence[PathLike] | Mapping[str, ArrayLike]
Picks = PathLike | Mapping[str, Particles]

_PICKED_HERE = Command("model", "picking.min_scores", ".pick(volume)", language="python")
"""How a model picks what is not on disk, named as docs/review.md names it."""


def review(
    tomograms: Tomograms,
    picks: Picks,
    *,
    out: PathLike,
    model: Model | PathLike | None = None,
    species: Mapping[str, float] | None = None,
    voxel_size: float | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write pages on which picks are reviewed in a browser, as `robpicker review` does; up to eight tomograms a page.

    The page saves a file of decisions, which `apply_review` carries out.

    Args:
        tomograms: volume files, folders of them, a copick project, or arrays (z, y, x) by name.
        picks: lists: a file, a folder, a copick project, the `audit.csv` of an audit, or `Particles` by the tomogram's name.
        out: folder of the pages.
        model: whose species and radii are shown: a `Model`, a run's folder, a model's file, or the name of a shipped one.
        species: instead, radius in Å by name, in the order of class labels.
        voxel_size: edge of a voxel in Å, where headers do not say it; for arrays, the model's own where it is None.
        overwrite: replace earlier pages.

    Returns:
        The pages, which a browser opens.

    Raises:
        InputError: neither or both of `model` and `species`, a tomogram without a list, an array that is none, an unknown
            voxel size, or pages that exist.
    """
    if (model is None) == (species is None):
        raise InputError("give one of model and species", where="review", fix="such as species={'ribosome': 150}")
    card = None if model is None else _card(model)
    source = model.source if isinstance(model, Model) else None if model is None else Path(model)
    paths = _paths(tomograms)
    if isinstance(tomograms, Mapping):
        size = voxel_size if card is None else voxel_size or card.voxel_size_angstrom
        opened = [Opened(name, _array(name, volume), size) for name, volume in tomograms.items()]
    else:
        section = CopickConfig() if card is None else card.data.copick
        opened = open_tomograms(paths, section, voxel_size, card)
    size = common_voxel_size(opened)
    shown = species_of_card(card, size) if card else species_of_radii(species or {}, size, "species", "voxel_size")
    names = [entry.name for entry in shown]
    if isinstance(picks, Mapping):
        lists = [_in_memory(picks, item.reviewed, names) for item in opened]
    else:
        opened, lists = lists_of(paths, opened, Path(picks), names)
    return write_pages(
        Path(out),
        opened,
        lists,
        shown,
        pick_command(source, paths) if paths and not isinstance(picks, Mapping) else _PICKED_HERE,
        title=f"Review: {'picks' if isinstance(picks, Mapping) else Path(picks).resolve().name}",
        after_review=_after_review(picks),
        picks=None if isinstance(picks, Mapping) else Path(picks),
        expected=expected_of({} if card is None else known_calibration(source, card)),
        overwrite=overwrite,
    )


def apply_review(
    decisions: PathLike | Sequence[PathLike],
    picks: Picks,
    *,
    out: PathLike | None = None,
    format: str | None = None,
    accepted_only: bool = False,
    voxel_size: float | None = None,
    overwrite: bool = False,
) -> dict[str, Particles]:
    """Carry the decisions of a review out on the picks that were reviewed, as `robpicker review --apply` does.

    Args:
        decisions: one or more files of decisions, which the page or napari saved.
        picks: the picks that were reviewed, unchanged.
        out: folder of the lists that are left, or the `copick_config.json` of a project; None: they are not written.
        format: their format; None: XML, and copick's into a project.
        accepted_only: leave out what nobody decided on.
        voxel_size: edge of a voxel in Å; None: that with which the picks were reviewed.
        overwrite: replace earlier lists.

    Returns:
        The particles that the decisions leave, by the tomogram's name.

    Raises:
        InputError: a file that holds no decisions, picks that were not those reviewed, or lists that exist.
    """
    files = [Path(decisions)] if isinstance(decisions, str | os.PathLike) else [Path(path) for path in decisions]
    if not files:
        raise InputError("no file of decisions", where="decisions", fix="give one that the page or napari saved")

    def list_of(tomogram: ReviewedTomogram, class_names: Sequence[str]) -> ReviewList:
        if isinstance(picks, Mapping):
            return _in_memory(picks, tomogram, class_names)
        (given,) = review_lists(Path(picks), [tomogram], class_names)
        return given

    done = carried_out(files, list_of, voxel_size_angstrom=voxel_size, accepted_only=accepted_only)
    if out is not None:
        inputs = files if isinstance(picks, Mapping) else [*files, Path(picks)]
        write_lists(Path(out), done, format, inputs=inputs, overwrite=overwrite)
    return {given.name: corrected for given, corrected in done}


def _after_review(picks: Picks) -> AfterReview:
    """The call that carries the decisions out; of a project they go into it."""
    if isinstance(picks, Mapping):
        given, out = "picks", "'CORRECTED'"
    else:
        given = repr(os.fspath(picks))
        out = given if is_project(Path(picks)) else "'CORRECTED'"
    return AfterReview("rp.apply_review('", f"', {given}, out={out})")


def _card(model: Model | PathLike) -> ModelCard:
    return model.card if isinstance(model, Model) else load_trained_model(model).card


def _paths(tomograms: Tomograms) -> list[Path]:
    if isinstance(tomograms, Mapping):
        return []
    return [Path(path) for path in ([tomograms] if isinstance(tomograms, str | os.PathLike) else tomograms)]


def _array(name: str, volume: ArrayLike) -> np.ndarray:
    array = np.asarray(volume)
    if array.ndim != 3 or array.dtype.kind not in "fiub" or not array.size:
        raise InputError(f"needs an array (z, y, x) of numbers, got shape {array.shape} of {array.dtype}", where=name)
    return array


def _in_memory(picks: Mapping[str, Particles], tomogram: ReviewedTomogram, class_names: Sequence[str]) -> ReviewList:
    if tomogram.name not in picks:
        raise InputError(f"no picks of {tomogram.name}", where="picks", fix=f"there are {', '.join(picks) or 'none'}")
    size, shape = tomogram.voxel_size_angstrom, tomogram.shape_zyx
    return ReviewList(tomogram.name, picks[tomogram.name], class_names, None, size, shape)
