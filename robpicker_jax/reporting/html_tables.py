"""Numbers as HTML: headline tiles, the table of scores, lists of names and values. Everything is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from robpicker_jax.evaluation.rules import RULES
from robpicker_jax.picking.expectation import Rate
from robpicker_jax.reporting.data import ReportData
from robpicker_jax.reporting.style import class_colours, colour_of
from robpicker_jax.reporting.tables import Evaluation, Score, read_evaluation, series


def tiles(data: ReportData) -> str:
    """The headline numbers, as far as they are known."""
    ours, other = read_evaluation(data.evaluation), _other(data)
    entries: list[tuple[str, str]] = []
    if ours.macro.f1 is not None:
        label = "macro F1, test"
        if ours.macro.interval is not None and ours.beta == 1:
            label += f" (95 %: {ours.macro.interval[0]:.2f}–{ours.macro.interval[1]:.2f})"
        entries.append((f"{ours.macro.f1:.3f}", label))
    if other.macro.f1 is not None and data.comparison is not None:
        entries.append((f"{other.macro.f1:.3f}", f"macro F1, {data.comparison.name}"))
    if data.tomograms:
        entries.append((f"{sum(len(view.picks) for view in data.tomograms):,}", "picks"))
        true = [len(view.truth) for view in data.tomograms if view.truth is not None]
        if true:
            entries.append((f"{sum(true):,}", "true particles"))
    steps, rates = series(data.history, "train", "patches_per_second")
    steps = steps if len(steps) else series(data.history, "train", "inner_loss")[0]
    if len(steps):
        entries.append((f"{int(steps[-1]):,}", "training steps"))
    if len(rates):
        entries.append((f"{sorted(rates)[len(rates) // 2]:,.3g}", "patches a second"))
    return "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in entries
    )


def score_table(data: ReportData) -> str:
    """Table of counts, precision, recall and F1 by class, by size group and in the mean; "" without an evaluation."""
    ours, other = read_evaluation(data.evaluation), _other(data)
    if not ours.classes:
        return ""
    colours = class_colours([s.name for s in data.species])
    sizes = {s.name: s.size_text for s in data.species}
    head = ["class", "size", "true", "picks", "correct", "precision", "recall", "F1"]
    extra = _extra_columns(ours)
    head[7:7] = [title for title, _ in extra]
    paired = bool(other.classes) and data.comparison is not None
    if paired and data.comparison is not None:
        head += [f"F1, {data.comparison.name}", "gain"]
    rows = []
    for score in ours.classes:
        swatch = f'<span class="swatch" style="background:{colour_of(colours, score.name)}"></span>'
        cells = [f"<td>{swatch}{escape(score.name)}</td>", f"<td>{escape(sizes.get(score.name, '–'))}</td>"]
        rows.append(f"<tr>{''.join(cells)}{_numbers(score, other.of_class(score.name), paired, extra)}</tr>")
    theirs = {score.name: score for score in other.groups}
    for group in ours.groups:
        members = escape(", ".join(group.members)) if group.members else "size group"
        cells = [f'<td title="{members}">{escape(group.name)}</td>', f"<td>{_classes(len(group.members))}</td>"]
        rows.append(f'<tr class="group">{"".join(cells)}{_numbers(group, theirs.get(group.name), paired, extra)}</tr>')
    macro = f"<td>macro average</td><td></td>{_numbers(ours.macro, other.macro, paired, extra)}"
    rows.append(f'<tr class="total">{macro}</tr>')
    header = "".join(f"<th>{escape(text)}</th>" for text in head)
    notes = [_rule(ours)] if ours.rule else []
    if extra and extra[0][0] == "AP":
        notes.append("AP: average precision. Best score: the score threshold of the highest F-beta.")
    rule = f'<p class="soft">{escape(" ".join(notes))}</p>' if notes else ""
    table = f'<table id="scores"><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>{rule}'


def calibration_table(data: ReportData) -> str:
    """Smallest scores by precision asked for, and the recall that is left; "" where nothing was calibrated."""
    if not data.calibration:
        return ""
    wanted = sorted({row[0] for rows in data.calibration.values() for row in rows})
    colours = class_colours([s.name for s in data.species])
    head = "".join(f"<th>precision {value:g}</th>" for value in wanted)
    body = ""
    for name, rows in data.calibration.items():
        by_precision = {row[0]: row for row in rows}
        cells = [
            f"<td>≥ {by_precision[value][1]:.2f}, recall {by_precision[value][2]:.2f}</td>"
            if value in by_precision
            else "<td>not shown</td>"
            for value in wanted
        ]
        swatch = f'<span class="swatch" style="background:{colour_of(colours, name)}"></span>'
        body += f"<tr><td>{swatch}{escape(name)}</td>{''.join(cells)}</tr>"
    note = (
        "What a smallest score gives: the lowest score for which the meta (and validation) tomograms show a precision with "
        "95 % confidence, and the recall there. pick --precision chooses so, --picking.min_score sets a score."
    )
    table = f'<table id="calibration"><thead><tr><th>class</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h3>Choosing a score</h3><div class="scroll">{table}</div><p class="soft">{escape(note)}</p>'


def expectation_table(data: ReportData) -> str:
    """Precision and recall to expect without truth, by smallest score; "" where nothing was calibrated."""
    curves = {name: curve for name, curve in data.expected.items() if curve}
    if not curves:
        return ""
    colours = class_colours([s.name for s in data.species])
    body = ""
    for name, curve in curves.items():
        chosen = curve if len(curve) <= _ROWS_OF_A_CLASS else [curve[round(k)] for k in _spread(len(curve))]
        for index, point in enumerate(chosen):
            swatch = f'<span class="swatch" style="background:{colour_of(colours, name)}"></span>{escape(name)}'
            first = f'<td rowspan="{len(chosen)}">{swatch}</td>' if index == 0 else ""
            recall = "–" if point.recall is None else _bounded(point.recall)
            body += (
                f"<tr>{first}<td>≥ {point.threshold:.2f}</td><td>{_bounded(point.precision)}</td><td>{recall}</td></tr>"
            )
    note = (
        "What to expect of tomograms without truth, as far as they are like the meta (and validation) tomograms, on which "
        "these rates were seen; in brackets their 95 % bounds. Of n picks about n × precision are right, and there are "
        "about n × precision / recall particles. pick --rejected lists what a limit dropped."
    )
    head = "<th>class</th><th>smallest score</th><th>precision</th><th>recall</th>"
    table = f'<table id="expectation"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="soft">{escape(note)}</p>'


_ROWS_OF_A_CLASS = 6


def _spread(count: int) -> list[float]:
    """Evenly spaced places in a list of `count`, its ends included."""
    return [index * (count - 1) / (_ROWS_OF_A_CLASS - 1) for index in range(_ROWS_OF_A_CLASS)]


def _bounded(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def definition_list(entries: Mapping[str, Any]) -> str:
    """Names and values as a description list."""
    rows = ""
    for name, value in entries.items():
        rows += f"<dt>{escape(str(name))}</dt><dd>{escape(_words(value))}</dd>"
    return f"<dl>{rows}</dl>"


def _words(value: Any) -> str:
    """A value from JSON as a reader expects it: no brackets, no quotes."""
    if isinstance(value, Mapping):
        return "; ".join(f"{str(key).replace('_', ' ')}: {_words(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _extra_columns(evaluation: Evaluation) -> list[tuple[str, Callable[[Score], str]]]:
    """Columns that only some evaluations have: (heading, text of a score)."""
    columns: list[tuple[str, Callable[[Score], str]]] = []
    if any(score.average_precision is not None for score in evaluation.classes):
        columns.append(("AP", lambda score: _rate(score.average_precision)))
        columns.append(("best score", lambda score: _rate(score.best_threshold, 2)))
    if any(score.error_angstrom is not None for score in evaluation.classes):
        columns.append(("error, Å", lambda score: _rate(score.error_angstrom, 1)))
    elif any(score.error_vox is not None for score in evaluation.classes):
        columns.append(("error, voxels", lambda score: _rate(score.error_vox, 2)))
    if evaluation.beta != 1:
        columns.append((f"F{evaluation.beta:g}", lambda score: _rate(score.fbeta)))
    return columns


def _numbers(
    score: Score, other: Score | None, paired: bool, extra: Sequence[tuple[str, Callable[[Score], str]]]
) -> str:
    cells = [f"<td>{_count(value)}</td>" for value in (score.true, score.picked, score.true_positives)]
    cells += [f"<td>{_rate(value)}</td>" for value in (score.precision, score.recall)]
    cells += [f"<td>{text(score)}</td>" for _, text in extra]
    width = f' style="background-size:{100 * score.f1:.0f}% 74%"' if score.f1 is not None else ""
    cells.append(f'<td class="barred"{width}>{_rate(score.f1)}</td>')
    if paired:
        theirs = None if other is None else other.f1
        cells.append(f"<td>{_rate(theirs)}</td>")
        if score.f1 is None or theirs is None:
            cells.append("<td>–</td>")
        else:
            gain = score.f1 - theirs
            kind = "up" if gain > 0.0005 else "down" if gain < -0.0005 else ""
            cells.append(f'<td class="{kind}">{gain:+.3f}</td>')
    return "".join(cells)


def _classes(number: int) -> str:
    return "– classes" if not number else "1 class" if number == 1 else f"{number} classes"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _rate(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _other(data: ReportData) -> Evaluation:
    return read_evaluation(data.comparison.evaluation) if data.comparison is not None else Evaluation()


def _rule(evaluation: Evaluation) -> str:
    known = RULES.get(evaluation.rule)
    if known is None:
        return f"Rule of a correct pick: {evaluation.rule}."
    rule = f"What counts as correct: {known.text}, of its class."
    if known.counting is None and not evaluation.one_to_one:
        rule += " A particle may count more than once."
    return rule
