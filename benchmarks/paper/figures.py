"""Figures of a study, drawn from its record, after the paper's figures 2, 3, 5 and 6."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.paper.record import Record
from benchmarks.paper.statistics import Estimate
from robpicker_jax.reporting.style import FAINT, INK, class_colours, legend_below, line_style, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METHOD = "robpicker"  # the name that every study gives to the whole method
_ALONE = ("lc_only", "dr_only")  # and to each of its two halves
_TITLE_LETTERS = 60  # of a line
_MARKS = "osD^vP*Xhd<>"
_MACRO, _SMALL = "plain/f1/macro", "plain/f1/small species"
_INTERVALS = "bars: 95 % interval over seeds (Student's t)"


def curves_figure(record: Record) -> Figure | None:
    """What correction and weights do in the course of training (after figure 2): of RobPicker, or else the first such case.

    Left: share of the voxels of missing particles that the corrected labels hold; middle: share of label voxels that
    are wrong, before and after; right: mean weight of the patches drawn for each species.
    """
    chosen = [(name, case) for name in record.data_sets for case in record.curves(name)]
    if not chosen:
        return None
    data_set, case = next((each for each in chosen if each[1] == _METHOD), chosen[0])
    curves = record.curves(data_set)[case]
    figure = _figure(9.6, 3.5)
    recovered, error, weights = figure.subplots(1, 3)
    colours = class_colours(record.species)
    for index, name in enumerate(record.species):
        style: dict[str, Any] = {"color": colours[name], "ls": line_style(index)}
        _line(recovered, curves.get(f"correction/recovered/{name}"), marker="o", ms=3, **style)
        _line(weights, curves.get(f"weight_mean/{name}"), label=short(name), **style)
    for key, label, colour in (("before", "as given", FAINT), ("after", "corrected", INK)):
        _line(error, curves.get(f"correction/error_{key}"), label=label, color=colour, marker="o", ms=3)
    titles = ("Missing particles restored", "Wrong voxels in labels", "Mean weight of patches")
    for axes, title in zip((recovered, error, weights), titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel("training step")
        axes.set_ylim(bottom=0)
    if error.lines:
        error.legend(frameon=False, fontsize=8)
    handles = weights.get_legend_handles_labels()[0]
    if handles:
        legend_below(figure, handles, 6)
    figure.suptitle(f"{record.label(case)}, {record.data_sets[data_set]}", fontsize=9, color=FAINT)
    return figure


def species_figure(record: Record) -> Figure | None:
    """F1 of each species and size group by case (after figure 3), one row for each data set."""
    names = [*record.species, *(f"group {group}" for group in record.groups), "macro"]
    rows = list(record.data_sets)
    figure = _figure(9.6, 0.6 + 2.7 * len(rows))
    colours, marks = _looks(record)
    for axes, data_set in zip(np.atleast_1d(figure.subplots(len(rows), 1, sharex=True)), rows, strict=True):
        cases = record.cases(data_set, shown_only=True)
        for number, case in enumerate(cases):
            beside = (number - (len(cases) - 1) / 2) / max(len(cases), 2) * 0.75
            found = [record.mean(data_set, case, f"plain/f1/{name}") for name in names]
            _points(axes, np.arange(len(names)) + beside, found, colours[case], marks[case], record.label(case))
        for edge in (len(record.species) - 0.5, len(names) - 1.5):
            axes.axvline(edge, color=FAINT, lw=0.8)
        axes.set_title(record.data_sets[data_set])
        axes.set_ylabel("F1")
        axes.set_ylim(-0.03, 1.03)
        axes.grid(False, axis="x")
        labels = [short(name.replace("group ", "")) + (" (group)" if "group " in name else "") for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=25, ha="right")
    _legend(figure, 4)
    return figure


def differences_figure(record: Record) -> Figure | None:
    """Each case minus the first reference, paired by seed (after figure 6): macro F1, and F1 of the small species."""
    panels = [name for name in record.data_sets if record.references(name)]
    if not panels:
        return None
    most = max(len(record.cases(name)) for name in panels)
    figure = _figure(9.6, 0.9 + len(panels) * (0.5 + 0.24 * most))
    for axes, data_set in zip(np.atleast_1d(figure.subplots(len(panels), 1, sharex=True)), panels, strict=True):
        reference = record.references(data_set)[0]
        cases = [case for case in record.cases(data_set) if case != reference]
        for metric, colour, mark, label, beside in (
            (_MACRO, INK, "o", "macro F1", -0.15),
            (_SMALL, "#D55E00", "s", "F1 of the small species", 0.15),
        ):
            for row, case in enumerate(cases):
                found = record.difference(data_set, case, metric, reference)
                if math.isnan(found.mean):
                    continue
                low, high = found.t or (found.mean, found.mean)
                axes.plot([low, high], [row + beside] * 2, color=colour, lw=1.2)
                axes.plot(found.mean, row + beside, mark, color=colour, ms=4, label=label)
                label = ""
        axes.axvline(0, color=FAINT, lw=0.8)
        axes.set_yticks(range(len(cases)), [short(record.label(case), 44) for case in cases])
        axes.set_ylim(len(cases) - 0.4, -0.6)
        name = "\n".join(textwrap.wrap(record.data_sets[data_set], _TITLE_LETTERS))
        axes.set_title(f"F1 minus that of {record.label(reference)}\n{name}")
    low, high = figure.axes[0].get_xlim()
    figure.axes[0].set_xlim(max(low, -1.0), min(high, 1.0))  # intervals of two seeds reach beyond what F1 can be
    _legend(figure, 2)
    return figure


def gains_figure(record: Record) -> Figure | None:
    """What both meta networks together gain over each alone, as a share of its mean F1 (after figure 6).

    By species from small to large, then by size group. Where one alone finds next to nothing (F1 below 0.05), its place
    stays empty: a share of nothing says nothing.
    """
    wanted = {_METHOD, *_ALONE}
    found = [name for name in record.data_sets if wanted <= set(record.cases(name))]
    if not found:
        return None
    parts = [*reversed(record.species), *(f"group {group}" for group in record.groups)]
    figure = _figure(9.6, 0.7 + 2.4 * len(found))
    for axes, data_set in zip(np.atleast_1d(figure.subplots(len(found), 1, sharex=True)), found, strict=True):
        for number, (case, colour) in enumerate(zip(_ALONE, (INK, "#D55E00"), strict=True)):
            gains = [_gain(record, data_set, case, f"plain/f1/{part}") for part in parts]
            axes.bar(
                np.arange(len(parts)) + 0.4 * (number - 0.5),
                gains,
                0.36,
                color=colour,
                label=f"over {record.label(case)}",
            )
        axes.axhline(0, color=FAINT, lw=0.8)
        axes.axvline(len(record.species) - 0.5, color=FAINT, lw=0.8)
        axes.set_title("\n".join(textwrap.wrap(record.data_sets[data_set], _TITLE_LETTERS)))
        axes.set_ylabel("gain of F1, %")
        axes.grid(False, axis="x")
        labels = [short(part.replace("group ", "")) + (" (group)" if "group " in part else "") for part in parts]
        axes.set_xticks(range(len(parts)), labels)
    handles = figure.axes[0].get_legend_handles_labels()[0]
    legend_below(figure, handles, 2, title="of means over seeds")
    return figure


def _gain(record: Record, data_set: str, case: str, metric: str) -> float:
    ours, theirs = (record.mean(data_set, each, metric).mean for each in (_METHOD, case))
    return 100 * (ours / theirs - 1) if theirs >= 0.05 else math.nan


def data_sets_figure(record: Record) -> Figure | None:
    """Macro F1 and F1 of the small species over the data sets, one line for each case, broken where one has no run."""
    names = list(record.data_sets)
    figure = _figure(9.6, 3.9)
    colours, marks = _looks(record)
    shown = {name: record.cases(name, shown_only=True) for name in names}
    cases = [case for case in record.content["cases"] if any(case in shown[name] for name in names)]
    for axes, metric, title in zip(
        figure.subplots(1, 2, sharey=True), (_MACRO, _SMALL), ("Macro F1", "F1 of the small species"), strict=True
    ):
        for number, case in enumerate(cases):
            where = [index for index, name in enumerate(names) if case in shown[name]]
            found = [record.mean(names[index], case, metric) for index in where]
            beside = (number - (len(cases) - 1) / 2) * 0.05
            line = np.full(len(names), np.nan)
            line[where] = [each.mean for each in found]
            axes.plot(np.arange(len(names)) + beside, line, color=colours[case], lw=1, alpha=0.6, zorder=1)
            _points(axes, np.array(where) + beside, found, colours[case], marks[case], record.label(case))
        axes.set_title(title)
        axes.set_xticks(range(len(names)), [short(record.data_sets[name]) for name in names], rotation=25, ha="right")
        axes.set_ylim(-0.03, 1.03)
    _legend(figure, 4)
    return figure


def averages_figure(record: Record) -> Figure | None:
    """FSC of averages of equally many picks, mean over seeds (after figure 5): of halves, and with the true map."""
    rows = [name for name in record.data_sets if record.averaged(name)]
    if not rows:
        return None
    columns = max(len(record.averaged(name)) for name in rows)
    figure = _figure(9.6, 2.9 * len(rows) + 0.7)
    colours, _ = _looks(record)
    grid = figure.subplots(len(rows), columns, sharey=True, squeeze=False)
    voxel = record.content["settings"]["simulation"]["voxel_size_angstrom"]
    panels = [(name, species) for name in rows for species in [*record.averaged(name), *[""] * columns][:columns]]
    for axes, (data_set, species) in zip(grid.ravel(), panels, strict=True):
        axes.set_visible(bool(species))
        for case in record.cases(data_set):
            edge = record.mean(data_set, case, f"average/edge/{species}").mean
            if math.isnan(edge):
                continue
            for kind, style in (("truth", "-"), ("halves", ":")):
                shells = np.arange(1, int(edge) // 2)
                curve = [record.mean(data_set, case, f"fsc {kind}/{species}/{shell:02d}").mean for shell in shells]
                label = short(record.label(case), 44) if kind == "truth" else None
                axes.plot(shells / (edge * voxel), curve, style, color=colours[case], lw=1.3, label=label)
        for level in (0.5, 0.143):
            axes.axhline(level, color=FAINT, lw=0.8)
        ticks = [1 / a for a in (100, 60, 45, 35, 28) if a >= 2 * voxel]
        axes.set_xticks(ticks, [f"{1 / tick:.0f}" for tick in ticks])
        axes.set_title(species)
        axes.set_xlabel("resolution, Å")
        axes.set_ylim(-0.03, 1.03)
    for axes, data_set in zip(grid[:, 0], rows, strict=True):
        kind = record.data_sets[data_set].partition(":")[0]
        axes.set_ylabel(f"FSC, {short(kind, 34)}")
    handles = grid[0, 0].get_legend_handles_labels()[0]
    legend_below(figure, handles, 4, title="full: with the true map; dotted: of the two halves")
    return figure


FIGURES: dict[str, Callable[[Record], Any]] = {
    "curves": curves_figure,
    "species": species_figure,
    "differences": differences_figure,
    "gains": gains_figure,
    "data_sets": data_sets_figure,
    "averages": averages_figure,
}
"""Name in a study's file → figure of its record; None where there is nothing to show."""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _looks(record: Record) -> tuple[dict[str, str], dict[str, str]]:
    """Colour and mark of each case: the first reference is black."""
    names = list(record.content["cases"])
    reference = record.content["references"][0] if record.content["references"] else ""
    colours = class_colours([name for name in names if name != reference]) | {reference: INK}
    return colours, {name: _MARKS[index % len(_MARKS)] for index, name in enumerate(names)}


def _points(axes: Axes, x: np.ndarray, found: list[Estimate], colour: str, mark: str, label: str) -> None:
    means = np.array([each.mean for each in found])
    axes.plot(x, means, mark, color=colour, ms=4, label=short(label, 44), zorder=3)
    for place, each in zip(x, found, strict=True):
        if each.t is not None:
            axes.plot([place, place], each.t, color=colour, lw=0.9, alpha=0.7)


def _line(axes: Axes, curve: list[list[float]] | None, **options: Any) -> None:
    if curve:
        steps, values = np.array(curve).T
        axes.plot(steps, values, **options)


def _legend(figure: Figure, columns: int) -> None:
    """One legend for all axes, each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        legend_below(figure, list(handles.values()), columns, title=_INTERVALS)
