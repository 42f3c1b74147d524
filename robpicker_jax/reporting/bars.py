"""F1 by class and by size group, beside the other run's where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.data import Absent, ReportData, SpeciesInfo
from robpicker_jax.reporting.style import FAINT, INK, class_colours, colour_of, short
from robpicker_jax.reporting.tables import Evaluation, Score, read_evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GROUP_COLOUR = "#5b6572"


def f1_figure(data: ReportData) -> Figure:
    """Bars of F1: classes from small to large, then size groups, then the macro average.

    Raises:
        Absent: no evaluation.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    ours = read_evaluation(data.evaluation)
    if not ours.classes:
        raise Absent(data.reason("evaluation", "the test tomograms have not been evaluated"))
    other = read_evaluation(data.comparison.evaluation) if data.comparison is not None else Evaluation()
    sizes = {s.name: s for s in data.species}
    order = data.sizes()
    classes = sorted(ours.classes, key=lambda score: order.get(score.name, np.inf))
    colours = class_colours([s.name for s in data.species])

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    groups = [*ours.groups, ours.macro]
    ratio = [max(len(classes), 2), max(len(groups), 2, 0.4 * len(classes))]
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=ratio)
    _bars(
        left,
        classes,
        [_class_label(score.name, sizes.get(score.name)) for score in classes],
        [other.of_class(score.name) for score in classes],
        [colour_of(colours, score.name) for score in classes],
    )
    left.set_title("F1 by class, small to large")
    left.set_ylabel("F1")
    theirs = {score.name: score for score in (*other.groups, other.macro)}
    _bars(
        right,
        groups,
        [_group_label(score) for score in groups],
        [theirs.get(score.name) for score in groups],
        [_GROUP_COLOUR] * len(ours.groups) + [INK],
    )
    right.set_title("By size group, and in the mean" if ours.groups else "In the mean")
    left.set_ylim(0, 1.12)
    left.set_yticks(np.linspace(0, 1, 6))
    if other.classes and data.comparison is not None:
        handles = [
            Patch(facecolor=_GROUP_COLOUR, label=data.variant),
            Patch(facecolor="white", edgecolor=_GROUP_COLOUR, hatch="////", label=data.comparison.name),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _bars(axes: Axes, scores: list[Score], labels: list[str], others: list[Score | None], colours: list[str]) -> None:
    paired = any(other is not None and other.f1 is not None for other in others)
    width = 0.38 if paired else 0.62
    shift = width / 2 + 0.01 if paired else 0.0
    size = 8 if len(scores) <= 7 else 6.5
    for index, (score, other, colour) in enumerate(zip(scores, others, colours, strict=True)):
        if score.f1 is not None:
            axes.bar(index - shift, score.f1, width, color=colour)
        _value(axes, index - shift, score.f1, size, INK)  # the other run's values are in the table where bars crowd
        if paired:
            f1 = None if other is None else other.f1
            if f1 is not None:
                axes.bar(index + shift, f1, width, facecolor="white", edgecolor=colour, hatch="////", lw=1)
            if len(scores) <= 4:
                _value(axes, index + shift, f1, size, FAINT)
    crowded = len(scores) > 5
    axes.set_xticks(
        range(len(scores)), labels, rotation=40 if crowded else 0, ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )  # fmt: skip
    axes.set_xlim(-0.6, len(scores) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")


def _value(axes: Axes, x: float, value: float | None, size: float, colour: str) -> None:
    text = "–" if value is None else f"{value:.2f}"
    axes.text(x, (value or 0) + 0.015, text, ha="center", va="bottom", fontsize=size, color=colour)


def _class_label(name: str, species: SpeciesInfo | None) -> str:
    if species is None:
        return short(name)
    size = f"{species.molecular_weight_kda:,.0f} kDa" if species.molecular_weight_kda else f"r {species.radius_vox:g}"
    return f"{short(name)}\n{size}"


def _group_label(score: Score) -> str:
    if score.name == "macro average":
        return "macro"
    return f"{short(score.name)}\n({len(score.members)})" if score.members else short(score.name)
