"""What label correction and sample weights did over training, by class, and what clean patches say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.config import META_NETWORKS
from robpicker_jax.reporting.curves import finish, in_order, noisy_curve, window_of
from robpicker_jax.reporting.data import Absent, ReportData
from robpicker_jax.reporting.style import (
    ACCENT,
    INK,
    class_colours,
    colour_of,
    legend_below,
    legend_under,
    line_style,
    short,
)
from robpicker_jax.reporting.tables import keys_with_prefix, series, smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 9.2
_MOST_ACROSS = 4  # small panels beside each other
_TITLE_LENGTH = 22  # of a small panel
_TEAL = "#00796b"


def correction_figure(data: ReportData) -> Figure:
    """Label mass gained and lost by class, and where the truth is known the labels' error and the correction's quality.

    Raises:
        Absent: no label correction, or none of its numbers was logged.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    if "correction" not in META_NETWORKS[data.variant]:
        raise Absent(data.reason("labels", "no label correction network"))
    names = [s.name for s in data.species]
    found = in_order(keys_with_prefix(data.history, "train", "label_gained/"), names)
    found = [name for name in found if name != "background"]
    error = {key: series(data.history, "validation", f"correction/error_{key}") for key in ("before", "after")}
    has_truth = len(error["after"][0]) > 0
    if not found and not has_truth:
        raise Absent(data.reason("labels", "metrics.jsonl has no numbers of the label correction"))

    n_rows = int(bool(found)) + int(has_truth)
    figure = Figure(figsize=(_WIDTH, 3.1 * n_rows + 0.3), layout="constrained")
    rows = iter(figure.subplots(n_rows, 2, squeeze=False))
    if found:
        gained, lost = next(rows)
        for panel, key, title in ((gained, "gained", "Label mass gained"), (lost, "lost", "Label mass lost")):
            panel.set_title(title)
            _by_class(panel, data, found, f"label_{key}/", names)
            # From nothing to thousands of voxels: linear below one voxel, logarithmic above.
            panel.set_yscale("symlog", linthresh=1.0)
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            finish(panel, "voxels a patch", "not recorded")
        top = max(panel.get_ylim()[1] for panel in (gained, lost))
        for panel in (gained, lost):
            panel.set_ylim(0, top)
        legend_below(figure, gained.get_legend_handles_labels()[0], columns=6)
    if has_truth:
        left, right = next(rows)
        left.set_title("Wrong voxels of the labels")
        for key, label, colour, style, marker in (
            ("after", "corrected", INK, "-", "o"),
            ("before", "as given", "#b9bec6", "--", ""),  # dashes on top, so that two equal curves are both seen
        ):
            steps, values = error[key]
            left.plot(steps, 100 * values, style, color=colour, lw=1.7, marker=marker, ms=4, label=label)
        left.set_ylim(bottom=0)
        finish(left, "% of all voxels", "")
        legend_under(left)
        right.set_title("Corrected voxels against the truth")
        for key, label, colour in (
            ("precision", "precision", INK),
            ("recall", "recall", ACCENT),
            ("recovered", "missing particles recovered", _TEAL),
        ):
            steps, values = series(data.history, "validation", f"correction/{key}")
            right.plot(steps, values, color=colour, lw=1.7, marker="o", ms=4, label=label)
        right.set_ylim(0, 1.04)
        finish(right, "share", "nothing was corrected")
        legend_under(right)
    return figure


def weights_over_steps_figure(data: ReportData) -> Figure:
    """Mean weight of each class over steps and its spread over the patches of a batch, one panel a class, small to large.

    Raises:
        Absent: no data reweighting, or no weights were logged.
    """
    from matplotlib.figure import Figure

    if "reweighting" not in META_NETWORKS[data.variant]:
        raise Absent(data.reason("weights", "no data reweighting network"))
    names = [s.name for s in data.species]
    sizes = data.sizes()
    found = in_order(keys_with_prefix(data.history, "train", "weight_mean/"), names)
    curves = {name: series(data.history, "train", f"weight_mean/{name}") for name in found}
    found = sorted((name for name in found if len(curves[name][0])), key=lambda name: sizes.get(name, np.inf))
    if not found:
        raise Absent(data.reason("weights", "metrics.jsonl has no weights by class"))
    colours = class_colours(names)
    across = min(len(found), _MOST_ACROSS)
    down = -(-len(found) // across)
    figure = Figure(figsize=(_WIDTH, (2.5 if down == 1 else 1.9) * down + 0.4), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for index, (panel, name) in enumerate(zip(panels, found, strict=False)):
        for other in found:
            if other != name:
                steps, values = curves[other]
                panel.plot(steps, smooth(values, window_of(values)), color="#d5d9df", lw=0.8, zorder=1)
        steps, values = curves[name]
        window, colour = window_of(values), colour_of(colours, name)
        mean = smooth(values, window)
        spread_steps, spread = series(data.history, "train", f"weight_std/{name}")
        if np.array_equal(steps, spread_steps):
            width = smooth(spread, window)
            panel.fill_between(steps, mean - width, mean + width, color=colour, alpha=0.25, lw=0, zorder=2)
        panel.plot(steps, mean, color=colour, lw=1.8, marker="." if len(steps) < 12 else "", zorder=3)
        panel.set_title(short(name, _TITLE_LENGTH), color=colour)
        finish(panel, "", "")
        if index + across < len(found):
            panel.set_xlabel("")
        panel.tick_params(labelbottom=index + across >= len(found))
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    # From zero: what matters is how many times heavier one species is than another.
    panels[0].set_ylim(0, 1.02 * panels[0].get_ylim()[1])
    figure.supylabel("mean weight", fontsize=9)
    return figure


def clean_patches_figure(data: ReportData) -> Figure:
    """The correction's own loss, what it restored and spoiled, and the loss on held-out clean patches, over steps.

    Raises:
        Absent: none of them was logged.
    """
    from matplotlib.figure import Figure

    train = {key: series(data.history, "train", key) for key in ("outer_loss", "own_loss")}
    shares = {key: series(data.history, "train", f"own_{key}") for key in ("restored", "spoiled")}
    held_out = series(data.history, "validation", "held_out_loss")
    names = [s.name for s in data.species]
    by_class = in_order(keys_with_prefix(data.history, "validation", "held_out_loss/"), names)
    has_own, has_held_out = len(train["own_loss"][0]) > 0, len(held_out[0]) > 0
    if not has_own and not has_held_out:
        raise Absent(data.reason("training", "metrics.jsonl has neither the correction's own nor a held-out loss"))

    n_panels = 1 + has_own + (has_held_out and bool(by_class))
    figure = Figure(figsize=(_WIDTH, 3.5), layout="constrained")
    panels = iter(figure.subplots(1, n_panels, squeeze=False)[0])
    panel = next(panels)
    panel.set_title("Loss on clean patches")
    for key, label, colour in (
        ("outer_loss", "meta patches (outer loss)", ACCENT),
        ("own_loss", "corrected, from corrupted (own loss)", _TEAL),
    ):
        if len(train[key][0]):
            noisy_curve(panel, *train[key], colour, label)
    if has_held_out:
        panel.plot(*held_out, color=INK, lw=2, marker="o", ms=4, label="held-out patches")
    finish(panel, "loss", "")
    legend_under(panel, columns=1)
    if has_own:
        panel = next(panels)
        panel.set_title("Corrupted labels")
        noisy_curve(panel, *shares["restored"], INK, "wrong voxels restored")
        noisy_curve(panel, *shares["spoiled"], ACCENT, "right voxels spoiled", "--")
        panel.set_ylim(0, 1.04)
        finish(panel, "share", "")
        legend_under(panel, columns=1)
    if has_held_out and by_class:
        panel = next(panels)
        panel.set_title("Held-out loss by species")
        _by_class(panel, data, by_class, "held_out_loss/", names, kind="validation")
        finish(panel, "loss", "")
        legend_below(figure, panel.get_legend_handles_labels()[0], columns=6)
    return figure


def _by_class(
    panel: Axes, data: ReportData, found: list[str], prefix: str, names: list[str], *, kind: str = "train"
) -> None:
    """One smoothed curve a class, in its colour."""
    colours = class_colours(names)
    for name in found:
        steps, values = series(data.history, kind, prefix + name)
        style = line_style(names.index(name)) if name in names else "-"
        marker = "." if len(values) < 20 else ""
        panel.plot(
            steps, smooth(values, window_of(values)), style, color=colour_of(colours, name), lw=1.5, marker=marker,
            label=short(name, _TITLE_LENGTH),
        )  # fmt: skip
