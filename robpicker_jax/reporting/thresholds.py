"""What a score threshold does: precision against recall, F1 against the threshold, and what to expect without truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.data import Absent, ReportData
from robpicker_jax.reporting.style import class_colours, colour_of, legend_below, line_style, short
from robpicker_jax.reporting.tables import read_evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def threshold_figure(data: ReportData) -> Figure:
    """Precision-recall curves of the classes, and their F1 at each score threshold.

    Raises:
        Absent: no evaluation, or picks without scores.
    """
    from matplotlib.figure import Figure

    scores = [score for score in read_evaluation(data.evaluation).classes if score.curve is not None]
    if not scores:
        raise Absent(data.reason("thresholds", "the evaluation holds no scored picks"))
    names = [s.name for s in data.species]
    colours = class_colours(names)
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for score in scores:
        assert score.curve is not None
        thresholds, precision, recall = score.curve
        colour = colour_of(colours, score.name)
        style = line_style(names.index(score.name)) if score.name in names else "-"
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        area = "" if score.average_precision is None else f"  AP {score.average_precision:.2f}"
        left.plot(recall, precision, style, color=colour, lw=1.6, label=short(score.name) + area)
        left.plot(recall[-1], precision[-1], "o", color=colour, ms=5, mec="white", mew=0.8)
        right.plot(thresholds, f1, style, color=colour, lw=1.6, drawstyle="steps-pre")
        best = int(np.argmax(f1))
        right.plot(thresholds[best], f1[best], "o", color=colour, ms=5, mec="white", mew=0.8)
    left.set_title("Precision against recall")
    left.set_xlabel("recall")
    left.set_ylabel("precision")
    right.set_title("F1 against the score threshold")
    right.set_xlabel("smallest score kept")
    right.set_ylabel("F1")
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.04)
    left.set_xlim(-0.02, 1.04)
    legend_below(figure, left.get_legend_handles_labels()[0], columns=4)
    return figure


def expectation_figure(data: ReportData) -> Figure:
    """Precision and recall of each class against the smallest score kept, as calibrated, with their bounds.

    Raises:
        Absent: the run is not calibrated.
    """
    from matplotlib.figure import Figure

    curves = {name: curve for name, curve in data.expected.items() if curve}
    if not curves:
        raise Absent("the run is not calibrated")
    names = [s.name for s in data.species]
    colours = class_colours(names)
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, curve in curves.items():
        style = line_style(names.index(name)) if name in names else "-"
        for axes, rates in ((left, [p.precision for p in curve]), (right, [p.recall for p in curve])):
            known = [(point.threshold, rate) for point, rate in zip(curve, rates, strict=True) if rate is not None]
            scores = [score for score, _ in known]
            colour = colour_of(colours, name)
            axes.plot(
                scores, [rate.value for _, rate in known], style, color=colour, lw=1.6, marker=".", label=short(name)
            )
            axes.fill_between(
                scores, [r.low for _, r in known], [r.high for _, r in known], color=colour, alpha=0.15, lw=0
            )
    for axes, title in ((left, "precision"), (right, "recall")):
        axes.set_title(f"Expected {title}")
        axes.set_xlabel("smallest score kept")
        axes.set_ylim(-0.02, 1.04)
    left.set_ylabel("share")
    legend_below(figure, left.get_legend_handles_labels()[0], columns=4)
    return figure
