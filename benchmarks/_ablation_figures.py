"""Curves of several trainings side by side: validation loss and F1, against updates and against time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.style import INK, class_colours, legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = "osD^vP*Xhd<>"


@dataclass(frozen=True)
class Curves:
    """Validation of the runs of one case.

    Attributes:
        updates: (m,), updates of the U-Net at each validation.
        seconds_per_update: None where not timed.
        loss, f1: (seeds, m).
    """

    updates: np.ndarray
    seconds_per_update: float | None
    loss: np.ndarray
    f1: np.ndarray


def comparison_figure(curves: Mapping[str, Curves], *, reference: str) -> Figure:
    """Loss and F1 in rows, updates and time in columns: mean over seeds as a line, from least to greatest as a bar.

    Args:
        curves: by label.
        reference: label drawn in black, with its range as a band.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row", sharex="col")
    shown = {label: curve for label, curve in curves.items() if len(curve.loss)}
    colours = class_colours([label for label in curves if label != reference]) | {reference: INK}
    marks = dict(zip(curves, _MARKS * 3, strict=False))
    for index, label in enumerate(shown):
        curve = shown[label]
        # Bars of several cases at one step would hide each other: each stands a little beside it.
        spacing = np.diff(curve.updates).min() if len(curve.updates) > 1 else 1.0
        beside = (index - (len(shown) - 1) / 2) / len(shown) * 0.35 * spacing
        for column, scale in enumerate((1.0, curve.seconds_per_update)):
            if scale is None:
                continue
            x = scale * (curve.updates + beside)
            for line, values in zip(axes[:, column], (curve.loss, curve.f1), strict=True):
                _draw(line, x, values, colours[label], marks[label], label, band=label == reference)
    for (left, right), name in zip(axes, ("Dice loss", "macro F1"), strict=True):
        left.set_ylabel(name)
        left.set_title(f"Validation {'loss' if name == 'Dice loss' else 'F1'} against updates")
        right.set_title("… against time of the updates")
    axes[1, 0].set_xlabel("updates of the U-Net")
    axes[1, 1].set_xlabel("seconds")
    axes[1, 0].set_ylim(bottom=0)
    seeds = sorted({len(curve.loss) for curve in shown.values()})
    handles = axes[0, 0].get_legend_handles_labels()[0]
    counted = f"{seeds[0]} seed{'s' if seeds[-1] > 1 else ''}" if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]} seeds"
    legend_below(figure, handles, 5, title=f"mean of {counted}; bars: from the least to the greatest")
    return figure


def _draw(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, mark: str, label: str, *, band: bool) -> None:
    low, high, mean = values.min(axis=0), values.max(axis=0), values.mean(axis=0)
    axes.plot(x, mean, color=colour, lw=2 if band else 1.3, marker=mark, ms=4, label=label, zorder=3 if band else 2)
    if band:
        axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    axes.vlines(x, low, high, color=colour, lw=0.9, alpha=0.6)
