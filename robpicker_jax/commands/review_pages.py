"""The pages of a review: what is shown on them, for the command and for notebooks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.config import CopickConfig
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.datasets.named import named_tomograms
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking.agreement import agrees, voxel_size_of
from robpicker_jax.picking.expectation import Expected, expected_curve_of_all
from robpicker_jax.reporting.data import APPLY, AfterReview, Command, SpeciesInfo
from robpicker_jax.reporting.rejected import rejected_beside
from robpicker_jax.reporting.review_page import page_paths, reviewed_view, write_review_page
from robpicker_jax.reporting.viewer import MAX_TOMOGRAMS
from robpicker_jax.reviewing import ReviewList
from robpicker_jax.reviewing.reading import ReviewedTomogram, lists_that_are, review_lists
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.outputs import check_outputs
from robpicker_jax.system.progress import say
from robpicker_jax.volumes import VolumeReader, open_volume


@dataclass(frozen=True)
class Opened:
    """A tomogram that is reviewed.

    Attributes:
        name: its name.
        density: (z, y, x), in memory, or the header of its volume, whose file is closed: there may be more tomograms than a
            process may hold files open.
        voxel_size_angstrom: None where it is not known.
    """

    name: str
    density: VolumeReader | np.ndarray
    voxel_size_angstrom: float | None

    @property
    def path(self) -> Path | None:
        """Its file; None of an array."""
        return None if isinstance(self.density, np.ndarray) else self.density.path

    @property
    def reviewed(self) -> ReviewedTomogram:
        """What reading its list needs to know of it."""
        density = self.density
        z, y, x = density.shape if isinstance(density, np.ndarray) else density.shape_zyx
        return ReviewedTomogram(self.name, self.voxel_size_angstrom, (int(z), int(y), int(x)))


def open_tomograms(
    paths: Sequence[str | Path], section: CopickConfig, voxel_size: float | None, card: ModelCard | None
) -> list[Opened]:
    """The tomograms of volume files, folders and copick projects, their headers read.

    Args:
        paths: the files, folders and projects.
        section: which tomograms of a project are meant.
        voxel_size: Å, where headers do not tell it.
        card: of the model whose species are shown; its voxel size serves where nothing tells another.

    Raises:
        InputError: one that cannot be read, a project without such tomograms, or a header that contradicts `voxel_size`.
    """
    trained = None if card is None else card.voxel_size_angstrom
    opened = []
    for files in named_tomograms(paths, section):
        with open_volume(files.volume_path) as header:  # its voxels are read when its page is written
            opened.append(Opened(files.name, header, voxel_size_of(header, voxel_size or trained, trained)))
    return opened


def lists_of(
    paths: Sequence[str | Path],
    opened: Sequence[Opened],
    picks: Path,
    class_names: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    fmt: str | None = None,
) -> tuple[list[Opened], list[ReviewList]]:
    """The tomograms and the list of each; of a project, the runs that have one, and it is said how many have none.

    Args:
        paths: where the tomograms are from, as `open_tomograms` takes them.
        opened: the tomograms.
        picks: the lists.
        class_names: name of class 1, 2, ….
        options, fmt: how the lists are read, see `review_lists`.

    Raises:
        InputError: no list of a tomogram, or of none of a project's runs.
    """
    tomograms = [item.reviewed for item in opened]
    if not any(is_project(path) for path in paths):
        return list(opened), review_lists(picks, tomograms, class_names, options=options, fmt=fmt)
    lists = lists_that_are(picks, tomograms, class_names, options=options, fmt=fmt)
    found = [(item, given) for item, given in zip(opened, lists, strict=True) if given is not None]
    if not found:
        shown = ", ".join(item.name for item in opened[:4]) + (" …" if len(opened) > 4 else "")
        raise InputError("no list of any of the runs", where=picks, fix=f"the runs are {shown}")
    if len(found) < len(opened):
        say(f"{len(opened) - len(found)} of {len(opened)} tomograms have no list there, and are left out")
    return [item for item, _ in found], [given for _, given in found]


def common_voxel_size(opened: Sequence[Opened]) -> float | None:
    """The voxel size of all tomograms in Å, since radii are shown in voxels; None where none is known.

    Raises:
        InputError: tomograms of different voxels.
    """
    sizes = [item.voxel_size_angstrom for item in opened if item.voxel_size_angstrom is not None]
    for item in opened:
        if sizes and not agrees(item.voxel_size_angstrom, sizes[0]):
            what = f"voxels of {item.voxel_size_angstrom:.4g} Å, and others of {sizes[0]:.4g} Å"
            raise InputError(what, where=item.path or item.name, fix="review those of one voxel size at a time")
    return sizes[0] if sizes else None


def species_of_card(card: ModelCard, voxel_size_angstrom: float | None) -> list[SpeciesInfo]:
    """A model's species, with radii in voxels of the tomograms."""
    trained = card.voxel_size_angstrom
    factor = 1.0 if voxel_size_angstrom is None or trained is None else trained / voxel_size_angstrom
    return [SpeciesInfo(s.name, s.radius_vox * factor, s.molecular_weight_kda) for s in card.data.species]


def species_of_radii(
    radii_angstrom: Mapping[str, float | None], voxel_size_angstrom: float | None, where: str, size_flag: str
) -> list[SpeciesInfo]:
    """Species by name in the order of their labels, with radii in voxels of the tomograms.

    Args:
        radii_angstrom: the radii.
        voxel_size_angstrom: of the tomograms.
        where: what the user gave the radii by, for messages.
        size_flag: what the user would give the voxel size by, for messages.

    Raises:
        InputError: a radius or the voxel size is not known.
    """
    if voxel_size_angstrom is None:
        raise InputError("radii are in Å, and the voxel size is not known", where=where, fix=f"give {size_flag}")
    for name, radius in radii_angstrom.items():
        if radius is None:
            raise InputError(f"{name} has no radius", where=where, fix=f"such as {name}:150, in Å")
    return [SpeciesInfo(name, radius / voxel_size_angstrom) for name, radius in radii_angstrom.items() if radius]


def expected_of(known: Mapping[str, ClassCalibration]) -> dict[str, list[Expected]]:
    """What picks of a model are worth by their score, by species, from its calibration."""
    return {name: expected_curve_of_all(entry) for name, entry in known.items()}


def pick_command(source: str | Path | None, tomograms: Sequence[str | Path]) -> Command:
    """The command that picks these tomograms; RUN stands for a model that is not known."""
    places = shlex.join(map(str, tomograms))
    return Command(f"robpicker pick --workdir {shlex.quote(str(source or 'RUN'))} --out PICKS", after=places)


def write_pages(
    out: Path,
    opened: Sequence[Opened],
    lists: Sequence[ReviewList],
    species: Sequence[SpeciesInfo],
    command: Command,
    *,
    title: str,
    after_review: AfterReview = APPLY,
    picks: Path | None = None,
    expected: Mapping[str, Sequence[Expected]] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write one page for up to `MAX_TOMOGRAMS` tomograms, of which one volume is open at a time.

    Args:
        out: the folder.
        opened: the tomograms.
        lists: the list of each.
        species: in the order of their labels.
        command: what made the lists.
        title: heading of the pages.
        after_review: what carries out the decisions on the lists.
        picks: what the lists were read from, which is not replaced, and beside which candidates that limits dropped are
            looked for; None: they were in memory.
        expected: what picks of the model that made the lists are worth, see `expected_of`.
        overwrite: replace earlier pages.

    Raises:
        InputError: a page that exists, or a tomogram that cannot be read.
    """
    parts = [slice(first, first + MAX_TOMOGRAMS) for first in range(0, len(opened), MAX_TOMOGRAMS)]
    paths = page_paths(out, "review", len(opened))
    check_outputs(paths, inputs=[picks, *(item.path for item in opened)], overwrite=overwrite)
    names = [entry.name for entry in species]
    for number, (path, part) in enumerate(zip(paths, parts, strict=True), start=1):
        views = []
        for item, given in zip(opened[part], lists[part], strict=True):
            dropped = None if picks is None else rejected_beside(picks, item.name, names)
            with nullcontext(item.density) if item.path is None else open_volume(item.path) as density:
                views.append(reviewed_view(item.name, density, given.particles, item.voxel_size_angstrom, dropped))
        subtitle = ", ".join(view.name for view in views)
        write_review_page(
            path,
            title,
            subtitle,
            species,
            views,
            command,
            after_review=after_review,
            number=number,
            expected=expected,
        )
    return paths
