"""An evaluation as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.evaluation.intervals import Interval
from robpicker_jax.evaluation.results import Evaluation
from robpicker_jax.evaluation.rules import RULES
from robpicker_jax.evaluation.scores import Counts, Rates

if TYPE_CHECKING:
    from rich.table import Table


def evaluation_table(evaluation: Evaluation, *, title: str = "Picks against truth") -> Table:
    """A rich table that fits 80 columns: classes, size groups (means over their classes), mean, pooled counts."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    several, beta = evaluation.macro_interval is not None, evaluation.beta
    has_curve = any(score.curve is not None for score in evaluation.classes)
    rule = RULES[evaluation.rule]
    hits = "" if rule.counting else ", one-to-one" if evaluation.one_to_one else ", not one-to-one"
    tomograms = f"{len(evaluation.tomograms)} tomogram{'s' if len(evaluation.tomograms) != 1 else ''}"
    caption = f"{tomograms}; hit: {rule.text}{hits}; error: mean distance, voxels"
    caption += "; AP: average precision" if has_curve else ""
    caption += f"; 95 %: interval of F{beta:g} over tomograms" if several else ""
    true, picked = evaluation.left_out()
    where = "outside the masks or repeated" if rule.counting == "greedy" else "outside the masks"
    caption += f"; {where}, not counted: {true} true, {picked} picked" if true or picked else ""
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=0)
    table.add_column("class", overflow="fold")  # the one column that may wrap
    columns = ["true", "picked", "hits", "prec.", "recall", "F1"]
    columns += [f"F{beta:g}"] if beta != 1 else []
    columns += ["95 %"] if several else []
    columns += ["AP"] if has_curve else []
    for column in [*columns, "error"]:
        table.add_column(column, justify="right", no_wrap=True)

    def row(
        name: str,
        rates: Rates,
        counts: Counts | None = None,
        interval: Interval | None = None,
        average_precision: float | None = None,
        error: float | None = None,
        end_section: bool = False,
    ) -> None:
        numbers = ["", "", ""]
        if counts is not None:
            numbers = [str(counts.true), str(counts.picked), str(counts.true_positives)]
        cells = [*numbers, _text(rates.precision), _text(rates.recall), _text(rates.f1)]
        cells += [_text(rates.fbeta)] if beta != 1 else []
        cells += ["" if interval is None else f"{interval.low:.2f}–{interval.high:.2f}"] if several else []
        cells += ["" if average_precision is None else _text(average_precision)] if has_curve else []
        table.add_row(name, *cells, "" if error is None else f"{error:.2f}", end_section=end_section)

    for score in evaluation.classes:
        error = None if score.localisation is None else score.localisation.mean_vox
        last = score is evaluation.classes[-1]
        row(score.name, score.rates, score.counts, score.interval, score.average_precision, error, last)
    for group in evaluation.groups:
        row(
            f"{group.name} ({len(group.members)})",
            group.macro,
            group.counts,
            end_section=group is evaluation.groups[-1],
        )
    row("macro (mean)", evaluation.macro, interval=evaluation.macro_interval)
    total = Counts(*map(int, evaluation.counts.sum(axis=(0, 1))))
    row("micro (pooled)", evaluation.micro, total, evaluation.micro_interval)
    if evaluation.localisation is not None:
        found = evaluation.localisation
        located = Counts(found.true, found.picked, found.located, found.located)
        row("any class", found.rates, located, error=found.mean_distance_vox)
    if evaluation.weighted is not None:
        row("weighted mean", evaluation.weighted)
    return table


def _text(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
