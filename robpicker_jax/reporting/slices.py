"""A slice of a test tomogram with true and picked particles: found, missed and false ones in different colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.reporting.data import UNCOUNTED, ReportData, SpeciesInfo, TomogramView
from robpicker_jax.reporting.image import draw_scale_bar, slab, window
from robpicker_jax.reporting.outcomes import matches_of
from robpicker_jax.reporting.style import (
    BACKGROUND_COLOUR,
    class_colours,
    legend_below,
    plain_image_axes,
    score_colours,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLAB_VOX = 5
SMOOTHING_VOX = 0.7
_LARGE_VOX = 300
_COLUMNS = 4
_UNCOUNTED_COLOUR = "#9aa3ad"


def slice_figure(data: ReportData, view: TomogramView) -> Figure:
    """The fullest slice of a tomogram: density alone and with particles (large tomograms: with particles only)."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from scipy.ndimage import gaussian_filter

    species = data.species
    radii = _radii(species, view)
    z = fullest_slice(view, radii)
    depth, height, width = view.shape_zyx
    panels = 1 if max(height, width) > _LARGE_VOX else 2
    panel_width = 4.5 if panels == 2 else 6.4
    rows = -(-len(species) // _COLUMNS) + 1
    figure = Figure(
        figsize=(panel_width * panels + 0.2, panel_width * min(height / width, 1.6) + 0.5 + 0.2 * rows),
        layout="constrained",
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    image = slab(view.density, round((z - (view.bin_zyx[0] - 1) / 2) / view.bin_zyx[0]), _slab(view))
    image = gaussian_filter(image, SMOOTHING_VOX / view.bin_zyx[1])
    bottom, top = window(image)
    for panel in axes:
        panel.imshow(
            image, cmap="gray", vmin=bottom, vmax=top, origin="lower", extent=(-0.5, width - 0.5, -0.5, height - 0.5),
            interpolation="bicubic",
        )  # fmt: skip
        plain_image_axes(panel)
    draw_scale_bar(axes[0], (height, width), view.voxel_size_angstrom)
    title = f"{short(view.name)}   z = {z} of 0…{depth - 1}"
    axes[0].set_title(title if panels == 1 else f"{title}, density")
    if panels == 2:
        axes[1].set_title("with particles")
    counts = _draw_particles(axes[-1], view, species, radii, z)
    axes[-1].set_xlim(-0.5, width - 0.5)
    axes[-1].set_ylim(-0.5, height - 0.5)

    present = sorted(set(view.picks.labels) | (set() if view.truth is None else set(view.truth.labels)))
    handles: list[Any] = [
        Line2D([], [], color=_colour(species, label), lw=3, label=short(_name(species, label))) for label in present
    ]
    handles += [
        Line2D([], [], ls="", label=" ") for _ in range(-len(present) % _COLUMNS)
    ]  # marks get a row of their own
    neutral = "#4a525d"
    if view.truth is None:
        handles.append(_dot(neutral, f"pick ({counts['picks']}), ring: its radius"))
        scores = view.picks.scores
        if scores is not None and np.isfinite(scores).any():
            ends = score_colours(2)
            handles.append(_dot(ends[0], f"lowest score, {np.nanmin(scores):.2f}"))
            handles.append(_dot(ends[1], f"highest score, {np.nanmax(scores):.2f}"))
    else:
        handles += [
            Line2D([], [], color=neutral, marker="o", ls="", mfc="none", mew=1.5, ms=9,
                   label=f"true, found ({counts['found']})"),
            Line2D([], [], color=neutral, lw=1.5, ls=(0, (1.6, 1.2)), label=f"true, missed ({counts['missed']})"),
            _dot(neutral, f"correct pick ({counts['hits']})"),
            Line2D([], [], color=neutral, marker="x", ls="", mew=2, ms=7, label=f"false pick ({counts['false']})"),
        ]  # fmt: skip
        if counts["uncounted"]:
            label = f"pick outside of what is scored ({counts['uncounted']})"
            handles.append(
                Line2D([], [], color=_UNCOUNTED_COLOUR, marker="o", ls="", mfc="none", mew=1.0, ms=9, label=label)
            )
    legend_below(figure, handles, columns=_COLUMNS)
    return figure


def fullest_slice(view: TomogramView, radii: np.ndarray) -> int:
    """The unbinned z that cuts most particles (true and picked); the middle where there are none."""
    depth = view.shape_zyx[0]
    counts = np.zeros(depth)
    for particles in (view.truth, view.picks):
        if particles is None or not len(particles):
            continue
        z, r = particles.positions_vox[:, 2], radii[particles.labels]
        counts += (np.abs(np.arange(depth)[:, None] - z) <= 0.6 * r).sum(1)
    if not counts.any():
        return depth // 2
    return int(np.argmax(np.convolve(counts, np.ones(3), "same")))


def _draw_particles(
    axes: Axes, view: TomogramView, species: tuple[SpeciesInfo, ...] | Any, radii: np.ndarray, z: float
) -> dict[str, int]:
    """Draw what lies within its radius of the slice; counts of what was drawn."""
    from matplotlib.patheffects import withStroke

    matches = matches_of(view, species)
    counts = dict.fromkeys(("found", "missed", "hits", "false", "uncounted", "picks"), 0)
    halo = [withStroke(linewidth=2.6, foreground=(1, 1, 1, 0.75))]
    if view.truth is not None and matches is not None:
        found = np.isin(np.arange(len(view.truth)), matches)
        for index, offset, radius in _cut(view.truth, radii, z):
            x, y, _ = view.truth.positions_vox[index]
            edge = _colour(species, view.truth.labels[index])
            line = "-" if found[index] else (0, (1.6, 1.2))
            axes.add_patch(_circle(x, y, offset, radius, lw=1.5, edgecolor=edge, ls=line, path_effects=halo))
            counts["found" if found[index] else "missed"] += 1
    opacity = _opacity(view.picks)
    sureness = _score_colours(view.picks)
    for index, offset, radius in _cut(view.picks, radii, z):
        x, y, _ = view.picks.positions_vox[index]
        colour = _colour(species, view.picks.labels[index])
        counts["picks"] += 1
        if matches is not None and matches[index] == UNCOUNTED:
            ring = _circle(x, y, offset, radius, lw=1.0, edgecolor=_UNCOUNTED_COLOUR, path_effects=halo)
            axes.add_patch(ring)
            counts["uncounted"] += 1
        elif matches is not None and matches[index] < 0:
            counts["false"] += 1
            axes.plot(x, y, "x", color="white", ms=8.5, mew=4, alpha=0.9)
            axes.plot(x, y, "x", color=colour, ms=7.5, mew=2.2)
        elif matches is not None:
            counts["hits"] += 1
            axes.plot(x, y, "o", color=colour, ms=4.8, mec="white", mew=0.9, alpha=opacity[index])
        else:
            ring = _circle(x, y, offset, radius, lw=1.5, edgecolor=colour, path_effects=halo)
            axes.add_patch(ring)
            axes.plot(x, y, "o", color=sureness[index], ms=4.8, mec="white", mew=0.9)
    return counts


def _cut(particles: Particles, radii: np.ndarray, z: float) -> list[tuple[int, float, float]]:
    offsets = np.abs(particles.positions_vox[:, 2] - z)
    reach = radii[particles.labels]
    return [(int(i), float(offsets[i]), float(reach[i])) for i in np.flatnonzero(offsets <= reach)]


def _circle(x: float, y: float, offset: float, radius: float, **style: Any) -> Any:
    """The ring in which a sphere is cut at a distance from its centre."""
    from matplotlib.patches import Circle

    return Circle((x, y), max(np.sqrt(radius**2 - offset**2), 0.35 * radius), fill=False, **style)


def _score_colours(picks: Particles) -> list[str]:
    """Colour of each pick's score, from the lowest to the highest of the tomogram; grey without scores."""
    if picks.scores is None or not np.isfinite(picks.scores).any():
        return [BACKGROUND_COLOUR] * len(picks)
    colours = score_colours(256)
    low, high = np.nanmin(picks.scores), np.nanmax(picks.scores)
    shares = (picks.scores - low) / (high - low) if high > low else np.ones(len(picks))
    return [BACKGROUND_COLOUR if not np.isfinite(share) else colours[round(255 * float(share))] for share in shares]


def _opacity(picks: Particles) -> np.ndarray:
    """0.35 for the lowest score … 1 for the highest; 1 without scores."""
    if picks.scores is None or not len(picks):
        return np.ones(len(picks))
    scores = np.nan_to_num(picks.scores, nan=np.nanmax(picks.scores) if np.isfinite(picks.scores).any() else 1.0)
    spread = scores.max() - scores.min()
    ranks = (scores - scores.min()) / spread if spread > 0 else np.ones(len(scores))
    opacity: np.ndarray = 0.35 + 0.65 * ranks
    return opacity


def _radii(species: Any, view: TomogramView) -> np.ndarray:
    """Radius by label; a label without a species gets the mean radius."""
    known = [s.radius_vox for s in species]
    other = float(np.mean(known)) if known else 5.0
    labels = [*view.picks.labels, *(() if view.truth is None else view.truth.labels), 0]
    radii = np.full(max(max(labels), len(known)) + 1, other)
    radii[1 : len(known) + 1] = known
    return radii


def _slab(view: TomogramView) -> int:
    return max(1, SLAB_VOX // view.bin_zyx[0])


def _name(species: Any, label: int | np.integer) -> str:
    return species[label - 1].name if 1 <= label <= len(species) else "unknown class"


def _colour(species: Any, label: int | np.integer) -> str:
    if not 1 <= label <= len(species):
        return BACKGROUND_COLOUR
    return class_colours([s.name for s in species])[species[label - 1].name]


def _dot(colour: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker="o", ls="", ms=5, mec="white", mew=0.9, label=label)
