"""Pages on which lists are reviewed: the report's viewer alone, for tomograms and lists of whatever origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.picking.expectation import Expected
from robpicker_jax.reporting.data import APPLY, AfterReview, Command, ReportData, SpeciesInfo, TomogramView
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.reporting.page import static_page
from robpicker_jax.reporting.rejected import Rejected
from robpicker_jax.reporting.stored import binned_density
from robpicker_jax.reporting.viewer import MAX_TOMOGRAMS, viewer_html
from robpicker_jax.system.files import write_text
from robpicker_jax.volumes import VolumeReader


def page_paths(out: Path, stem: str, tomograms: int) -> list[Path]:
    """The pages that so many tomograms take: `stem.html`, `stem_2.html` …."""
    pages = -(-tomograms // MAX_TOMOGRAMS)
    return [out / (f"{stem}.html" if number == 1 else f"{stem}_{number}.html") for number in range(1, pages + 1)]


def reviewed_view(
    name: str,
    density: np.ndarray | VolumeReader,
    picks: Particles,
    voxel_size_angstrom: float | None,
    rejected: Rejected | None = None,
) -> TomogramView:
    """A tomogram as a page shows it: 8-bit densities, binned to at most 256 × 512 × 512.

    Args:
        name: the tomogram's.
        density: (z, y, x): an array, or an open volume, which is read slab by slab.
        picks: its list, in voxels of the density.
        voxel_size_angstrom: edge of a voxel, None where it is not known.
        rejected: candidates that a limit dropped when the list was made, where they are known.
    """
    voxels = density if isinstance(density, np.ndarray) else _Voxels(density)
    small, bins = binned_density(voxels)
    shades = grey(small, window(small, 0.05, 99.95))
    z, y, x = voxels.shape
    return TomogramView(
        name,
        shades,
        None,
        picks,
        bin_zyx=bins,
        voxel_size_angstrom=voxel_size_angstrom,
        volume_shape_zyx=(int(z), int(y), int(x)),
        rejected=rejected,
    )


@dataclass(frozen=True)
class _Voxels:
    """An open volume as what slices index."""

    reader: VolumeReader

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.reader.shape_zyx

    def __getitem__(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        return self.reader.read(region)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.reader.read(dtype=dtype or np.float32)


def write_review_page(
    path: Path,
    title: str,
    subtitle: str,
    species: Sequence[SpeciesInfo],
    views: Sequence[TomogramView],
    command: Command,
    *,
    after_review: AfterReview = APPLY,
    number: int = 1,
    expected: Mapping[str, Sequence[Expected]] | None = None,
) -> None:
    """Write a page of at most `viewer.MAX_TOMOGRAMS` tomograms.

    Args:
        path: the HTML file.
        title: heading of the page, by which the browser keeps the review apart from others.
        subtitle: one line below it.
        species: in the order of their class labels.
        views: the tomograms.
        command: what made the lists.
        after_review: what carries out the decisions on them.
        number: which of the pages of this title it is, from 1.
        expected: by class, what picks of at least a score are worth without truth, where it is known of the model that
            made the lists.
    """
    if not 0 < len(views) <= MAX_TOMOGRAMS:
        raise ValueError(f"a page shows 1 to {MAX_TOMOGRAMS} tomograms, not {len(views)}")
    data = ReportData(
        title=title,
        species=species,
        tomograms=views,
        command=command,
        after_review=after_review,
        page=number,
        expected_of_all=expected or {},
    )
    elements, scripts = viewer_html(data)
    counts = {"tomograms": len(views), "particles": int(np.sum([len(view.picks) for view in views]))}
    tiles = "".join(f'<div class="tile"><b>{n}</b><span>{name}</span></div>' for name, n in counts.items())
    section = f'<section id="tomograms-section">{elements}</section>'
    write_text(path, static_page(title, subtitle, [], section, tiles=tiles, scripts=scripts))
