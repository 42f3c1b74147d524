"""Sample weights by species size (the paper's fig. 2b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.data import Absent, ReportData
from robpicker_jax.reporting.style import INK, class_colours, colour_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 250


def weights_figure(data: ReportData) -> Figure:
    """One box and its samples for each class, small to large.

    Raises:
        Absent: no weights.
    """
    from matplotlib.figure import Figure

    rows = [(row, _finite(row.weights)) for row in data.weights]
    rows = sorted(((row, values) for row, values in rows if len(values)), key=lambda pair: pair[0].size)
    if not rows:
        raise Absent(data.reason("weights", "no sample weights were kept"))
    colours = class_colours([s.name for s in data.species])
    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)  # the jitter only spreads the points out
    for x, (row, values) in enumerate(rows):
        colour = colour_of(colours, row.name)
        points = values if len(values) <= _MAX_POINTS else rng.choice(values, _MAX_POINTS, replace=False)
        axes.scatter(x + rng.uniform(-0.22, 0.22, len(points)), points, s=7, color=colour, alpha=0.45, lw=0, zorder=2)
        _box(axes, x, values, colour)
    crowded = len(rows) > 7
    axes.set_xticks(
        range(len(rows)), [f"{short(row.name)}\n{_size_text(row.size, row.unit)}" for row, _ in rows],
        rotation=40 if crowded else 0, ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )  # fmt: skip
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylabel("sample weight")
    axes.set_title(f"Sample weight by class, small to large ({rows[0][0].unit})")
    if len(rows) >= 4:
        rho = rank_correlation(np.array([row.size for row, _ in rows]), np.array([np.median(v) for _, v in rows]))
        text = f"Spearman's ρ of size and median weight: {rho:+.2f}".replace("-", "−")
        axes.set_title(text, loc="right", fontsize=8, fontweight="normal")
    return figure


def _box(axes: Axes, x: float, values: np.ndarray, colour: str) -> None:
    """Tukey's box: quartiles, median, whiskers to the last value within 1.5 box heights.

    Not `Axes.boxplot`, which starts pyplot and with it a window system's backend.
    """
    from matplotlib.patches import Rectangle

    low, middle, high = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (high - low)
    ends = values[values >= low - reach].min(), values[values <= high + reach].max()
    axes.add_patch(Rectangle((x - 0.28, low), 0.56, high - low, fill=False, ec=colour, lw=1.4, zorder=3))
    for edge, end in zip((low, high), ends, strict=True):
        axes.plot([x, x], [edge, end], color=colour, lw=1, zorder=3)
        axes.plot([x - 0.14, x + 0.14], [end, end], color=colour, lw=1, zorder=3)
    axes.plot([x - 0.28, x + 0.28], [middle, middle], color=INK, lw=2, solid_capstyle="butt", zorder=4)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties by their mean rank; 0 where one side is constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norm) if norm > 0 else 0.0


def _finite(weights: np.ndarray) -> np.ndarray:
    values = np.asarray(weights, np.float64).ravel()
    return values[np.isfinite(values)]


def _size_text(size: float, unit: str) -> str:
    return f"{size:,.0f} kDa" if "kDa" in unit else f"{size:g}"
