"""Figures and page of subtomogram averages: central slices of each class, and Fourier shell correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.style import FAINT, class_colours, legend_under, plain_image_axes, png_bytes, short, theme
from robpicker_jax.system.files import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_INCHES = 1.7


@dataclass(frozen=True, eq=False)
class AverageView:
    """One class's average, as figures show it.

    Attributes:
        name: of the class.
        filtered: (edge, edge, edge), particle bright.
        mask: bool, of the same shape.
        voxel_size_angstrom: of the map.
        particles: how many were averaged.
        fsc: shell → correlation, corrected.
        unmasked: the same without a mask.
        randomised: of random phases; NaN where they are not random.
        resolution_angstrom: at 0.143; infinite where the halves do not agree.
        resolution_half_angstrom: likewise at 0.5.
        warning: what to mind about the mask; none: nothing.
    """

    name: str
    filtered: np.ndarray
    mask: np.ndarray
    voxel_size_angstrom: float
    particles: int
    fsc: np.ndarray
    unmasked: np.ndarray
    randomised: np.ndarray
    resolution_angstrom: float
    resolution_half_angstrom: float
    warning: str | None = None


def montage_figure(views: Sequence[AverageView]) -> Figure:
    """The three central slices of each class's average, with the outline of its mask; one row a class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * _PANEL_INCHES + 0.3, len(views) * (_PANEL_INCHES + 0.25) + 0.1), layout="constrained")
    axes = figure.subplots(len(views), 3, squeeze=False)
    for row, view in zip(axes, views, strict=True):
        middle = view.filtered.shape[0] // 2
        low, high = np.percentile(view.filtered, (1, 99.8))
        for axis, (panel, plane) in enumerate(zip(row, ("xy", "xz", "yz"), strict=True)):
            panel.imshow(view.filtered.take(middle, axis), cmap="gray", vmin=low, vmax=high, origin="lower")
            outline = view.mask.take(middle, axis).astype(float)
            if outline.any() and not outline.all():
                panel.contour(outline, levels=[0.5], colors="#E69F00", linewidths=0.7)
            plain_image_axes(panel)
            panel.set_ylabel(plane, fontsize=8)
        words = _angstrom(view.resolution_angstrom)
        row[0].set_title(f"{short(view.name, 20)}   n = {view.particles}, {words}", fontsize=8)
    return figure


def _angstrom(limit: float) -> str:
    return f"{limit:.1f} Å" if np.isfinite(limit) else "no agreement"


def fsc_figure(views: Sequence[AverageView]) -> Figure:
    """FSC of the halves against resolution; thin: without a mask; dotted: with random phases."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    colours = class_colours([view.name for view in views])
    for view in views:
        edge = view.filtered.shape[0]
        frequency = np.arange(len(view.fsc)) / (edge * view.voxel_size_angstrom)
        colour = colours[view.name]
        axes.plot(frequency, view.fsc, color=colour, lw=1.8, label=short(view.name, 24))
        axes.plot(frequency, view.unmasked, color=colour, lw=0.8, alpha=0.7)
        axes.plot(frequency, view.randomised, color=colour, lw=0.9, ls=":")
    for level in (0.143, 0.5):
        axes.axhline(level, color=FAINT, lw=0.8, ls="--")
    axes.set_ylim(-0.1, 1.02)
    axes.set_xlim(left=0)
    axes.set_ylabel("Fourier shell correlation")
    axes.set_xlabel("resolution (Å)")
    ticks = axes.get_xticks()
    axes.set_xticks(ticks[ticks >= 0], [f"{1 / tick:.0f}" if tick > 0 else "∞" for tick in ticks if tick >= 0])
    axes.set_xlim(0, max(0.5 / view.voxel_size_angstrom for view in views))
    legend_under(axes, 3)
    return figure


def write_average_figures(folder: Path, views: Sequence[AverageView], *, overall: bool = False) -> list[Path]:
    """Write slices.png and fsc.png into a folder; with `overall` they are called montage.png and fsc.png.

    Returns:
        The files.
    """
    written = []
    with theme():
        for name, figure in ((("montage" if overall else "slices"), montage_figure(views)), ("fsc", fsc_figure(views))):
            path = folder / f"{name}.png"
            with atomic_path(path) as temporary:
                temporary.write_bytes(png_bytes(figure))
            written.append(path)
    return written


_SLICES_CAPTION = "Central slices xy, xz and yz of the filtered average, and the outline of its mask."
_FSC_CAPTION = (
    "Fourier shell correlation of the two halves. Thick: under the mask, corrected for it; thin: without a mask; dotted: of "
    "random phases under the mask. Dashed: 0.143 and 0.5."
)
_PROOF = (
    "An average does not prove its picks: picks that were found with a template average to that template, right or wrong, and "
    "their halves agree."
)


def write_average_page(path: Path, views: Sequence[AverageView]) -> Path:
    """Write one HTML file of all classes: numbers, then slices and FSC of each; it needs no other file and no network."""
    from robpicker_jax.reporting.page import Picture, static_page

    heads = ("class", "particles averaged", "FSC 0.143", "FSC 0.5", "")
    rows = "".join(
        f"<tr><td>{escape(view.name)}</td><td>{view.particles}</td><td>{_angstrom(view.resolution_angstrom)}</td>"
        f"<td>{_angstrom(view.resolution_half_angstrom)}</td><td>{escape(view.warning or '')}</td></tr>"
        for view in views
    )
    head = "".join(f"<th>{text}</th>" for text in heads)
    parts = [
        '<section id="results-section"><h2 id="results">Classes</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div><p>{_PROOF}</p></section>"
    ]
    navigation = [("results", "Classes")]
    with theme():
        for number, view in enumerate(views, start=1):
            key = f"class-{number}"
            slices = Picture("slices", png_bytes(montage_figure([view])), f"{view.name}. {_SLICES_CAPTION}")
            curves = Picture("fsc", png_bytes(fsc_figure([view])), f"{view.name}. {_FSC_CAPTION}", is_chart=True)
            heading = f'<h2 id="{key}">{escape(view.name)}</h2>'
            parts.append(f'<section id="{key}-section">{heading}{slices.html()}{curves.html()}</section>')
            navigation.append((key, view.name))
    write_text(path, static_page("Subtomogram averages", "", navigation, "\n".join(parts)))
    return path
