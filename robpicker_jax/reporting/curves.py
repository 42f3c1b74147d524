"""Curves over training: losses, validation F1, and how much the meta networks moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robpicker_jax.config import META_NETWORKS
from robpicker_jax.reporting.data import Absent, ReportData
from robpicker_jax.reporting.style import (
    ACCENT,
    FAINT,
    INK,
    class_colours,
    colour_of,
    legend_below,
    legend_under,
    line_style,
    short,
)
from robpicker_jax.reporting.tables import keys_with_prefix, number, series, smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training_figure(data: ReportData) -> Figure:
    """Inner and outer loss, and validation F1, over steps.

    Raises:
        Absent: the history holds neither.
    """
    from matplotlib.figure import Figure

    losses = [
        ("inner: training patches", INK, inner_loss(data.history)),
        ("outer: clean meta patches", ACCENT, series(data.history, "train", "outer_loss")),
    ]
    losses = [(label, colour, points) for label, colour, points in losses if len(points[0])]
    names = [s.name for s in data.species]
    f1_names = in_order(keys_with_prefix(data.history, "validation", "f1/"), names)
    macro = series(data.history, "validation", "macro_f1")
    if not losses and not len(macro[0]):
        raise Absent(data.reason("training", "metrics.jsonl holds no training or validation rows yet"))

    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=bool(losses))
    left.set_title("Loss")
    for label, colour, (steps, values) in losses:
        noisy_curve(left, steps, values, colour, label)
    finish(left, "Dice loss", "no training rows")
    if losses:
        legend_under(left)

    titles = {"meta": "F1 on the meta tomograms (optimistic)", "train": "F1 on the training tomograms (no others)"}
    right.set_title(titles.get(data.validated_on, "F1 on the validation tomograms"))
    colours = class_colours(names)
    for name in f1_names:
        steps, values = series(data.history, "validation", f"f1/{name}")
        style = line_style(names.index(name)) if name in names else "-"
        right.plot(steps, values, style, color=colour_of(colours, name), lw=1.1, marker=".", ms=4, label=short(name))
    if len(macro[0]):
        right.plot(*macro, color=INK, lw=2.2, marker="o", ms=4, label="macro average")
        best = int(np.argmax(macro[1]))
        right.annotate(
            f"best {macro[1][best]:.2f}",
            (macro[0][best], macro[1][best]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="right" if macro[0][best] > np.mean(right.get_xlim()) else "left",
            fontsize=8,
            fontweight="bold",
        )
    if data.comparison is not None:
        other = series(data.comparison.history, "validation", "macro_f1")
        if len(other[0]):
            label = f"macro average, {data.comparison.name}"
            right.plot(*other, color=FAINT, lw=2, ls=(0, (4, 2)), marker="o", ms=3, label=label)
    right.set_ylim(0, 1.04)
    finish(right, "F1", "no validation yet")
    if right.has_data():
        legend_below(figure, right.get_legend_handles_labels()[0], columns=6)
    return figure


def inner_loss(history: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the inner loss as the weighted mean of the patches' losses, Σ w ℓ / Σ w.

    The loss itself is Σ w ℓ / n: it rises and falls with the weights, whatever the network learns.
    """
    rows = [dict(row) for row in history]
    for row in rows:
        loss, weight = number(row.get("inner_loss")), number(row.get("weight_mean"))
        if loss is not None and weight:
            row["inner_loss"] = loss / weight
    return series(rows, "train", "inner_loss")


def meta_figure(data: ReportData) -> Figure:
    """Share of changed labels and hypergradient norm, over steps.

    Raises:
        Absent: there are no meta networks, or none of their numbers was logged.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shares = [
        (label, style, series(data.history, "train", key))
        for key, label, style in (
            ("alpha_mean", "mean α", "-"),
            ("changed_share", "label voxels changed", "--"),
        )
    ]
    shares = [(label, style, points) for label, style, points in shares if len(points[0])]
    norm = series(data.history, "train", "hypergradient_norm")
    panels: list[str] = []
    if shares and "correction" in META_NETWORKS[data.variant]:
        panels.append("shares")
    if len(norm[0]):
        panels.append("norm")
    if not panels or not META_NETWORKS[data.variant]:
        raise Absent(data.reason("meta", "metrics.jsonl has no numbers of the meta networks"))

    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    if "shares" in axes:
        panel = axes["shares"]
        panel.set_title("Label correction")
        for label, style, (steps, values) in shares:
            noisy_curve(panel, steps, values, INK if style == "-" else ACCENT, label)
        panel.set_ylim(bottom=0)
        finish(panel, "share", "")
        legend_under(panel)
    if "norm" in axes:
        panel = axes["norm"]
        panel.set_title("Hypergradient norm")
        steps, values = norm
        if (values > 0).all():
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        noisy_curve(panel, steps, values, INK, None)
        finish(panel, "‖h‖", "")
    return figure


def noisy_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str | None, style: str = "-"
) -> None:
    """A noisy curve: the values thin and light, their moving average on top."""
    window = window_of(values)
    if window > 1:
        axes.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
    marker = "." if len(values) < 12 else ""
    axes.plot(steps, smooth(values, window), style, color=colour, lw=1.7, label=label, marker=marker)


def in_order(found: list[str], names: list[str]) -> list[str]:
    """Species in the order of their labels, then the rest."""
    return [name for name in names if name in found] + [name for name in found if name not in names]


def window_of(values: Sequence[Any] | np.ndarray) -> int:
    """Length of the moving average of a curve: a fifteenth of it."""
    return max(1, len(values) // 15)


def finish(axes: Axes, ylabel: str, when_empty: str) -> None:
    """Labels and ticks of a panel over steps; a panel without curves says why."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)
    if not axes.has_data():
        axes.text(0.5, 0.5, when_empty, transform=axes.transAxes, ha="center", color=FAINT)
