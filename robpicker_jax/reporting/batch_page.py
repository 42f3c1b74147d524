"""The page of a batch: counts, scores, what stands out, and a thumbnail of each tomogram, as one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.batch import SCORE_BINS, BatchSummary, Row
from robpicker_jax.reporting.batch_rejected import BatchRejected, rejected_section
from robpicker_jax.reporting.page import Picture, static_page
from robpicker_jax.reporting.style import class_colours, colour_of, legend_below, line_style, png_bytes, short, theme
from robpicker_jax.system.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_THUMBNAILS = 400
"""Most pictures in a page: what stands out first, then by name."""
_MOST_BARS = 60
_NONE = BatchRejected()


def write_batch_page(path: Path, summary: BatchSummary, rejected: BatchRejected = _NONE) -> Path:
    """Write the page; it needs no other file and no network.

    Args:
        path: the HTML file.
        summary: the batch.
        rejected: what limits dropped, where `pick --rejected` wrote it.
    """
    unusual = [row for row in summary.rows if row.unusual or row.state != "finished" or row.note]
    with theme():
        pictures = [Picture("counts", png_bytes(_counts_figure(summary)), _COUNTS_CAPTION, is_chart=True)]
        if any(row.score_histogram for row in summary.rows):
            pictures.append(Picture("scores", png_bytes(_scores_figure(summary)), _SCORES_CAPTION, is_chart=True))
        spectra = _spectra_figure(summary)
        if spectra is not None:
            pictures.append(Picture("spectra", png_bytes(spectra), _SPECTRA_CAPTION, is_chart=True))
    figures = "".join(picture.html() for picture in pictures)
    sections = {
        "unusual": ("What stands out", _unusual(unusual)),
        "counts": ("Counts and scores", figures),
        "table": ("All tomograms", _table(summary)),
        "dropped": ("Dropped candidates", rejected_section(rejected, {row.name: row.counts for row in summary.rows})),
        "thumbnails": ("Thumbnails", _thumbnails(summary)),
    }
    sections = {key: section for key, section in sections.items() if section[1]}
    body = "\n".join(
        f'<section id="{key}-section"><h2 id="{key}">{title}</h2>{content}</section>'
        for key, (title, content) in sections.items()
    )
    navigation = [(key, title) for key, (title, _) in sections.items()]
    write_text(path, static_page(f"Batch of {summary.verb}", path.parent.name, navigation, body, tiles=_tiles(summary)))
    return path


def _tiles(summary: BatchSummary) -> str:
    done = [row for row in summary.rows if row.state == "finished"]
    left = len(summary.rows) - len(done)
    entries = [(f"{len(done):,}", "tomogram finished" if len(done) == 1 else "tomograms finished")]
    entries += [(f"{left:,}", "left out or not finished")] if left else []
    entries.append((f"{sum(row.total for row in done):,}", "picks" if summary.verb == "pick" else "labelled voxels"))
    entries.append((f"{sum(bool(row.unusual) for row in done):,}", "stand out"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in entries)


def _unusual(rows: Sequence[Row]) -> str:
    if not rows:
        return '<p class="soft">Nothing: all tomograms are finished and alike.</p>'
    lines = ""
    for row in rows:
        reasons = [*row.unusual, *([row.state] if row.state != "finished" else []), *([row.note] if row.note else [])]
        lines += f"<dt>{escape(row.name)}</dt><dd>{escape('; '.join(reasons))}</dd>"
    return f"<dl>{lines}</dl>"


def _table(summary: BatchSummary) -> str:
    colours = class_colours(list(summary.classes))
    head = "<th>tomogram</th><th>size, voxels</th><th>voxel, Å</th><th>all</th>" + "".join(
        f'<th><span class="swatch" style="background:{colour_of(colours, name)}"></span>{escape(name)}</th>'
        for name in summary.classes
    )
    head += "<th>spectrum</th><th></th>"
    body = ""
    for row in summary.rows:
        size = "" if row.shape_zyx is None else " × ".join(map(str, row.shape_zyx[::-1]))
        voxel = "" if row.voxel_size_angstrom is None else f"{row.voxel_size_angstrom:.4g}"
        finished = row.state == "finished"
        cells = [size, voxel, f"{row.total:,}" if finished else ""]
        for name in summary.classes:
            score = row.median_scores.get(name)
            middle = "" if score is None else f' <span class="soft">{score:.2f}</span>'
            if name in row.expected:
                right = row.expected[name].right
                middle += f'<br><span class="soft">{right.value:.0f} [{right.low:.0f}, {right.high:.0f}]</span>'
            cells.append(f"{row.counts.get(name, 0):,}{middle}" if finished else "")
        cells.append("" if row.spectrum_distance is None else f"{row.spectrum_distance:.2f}")
        cells.append(escape("; ".join([*row.unusual, *([] if finished else [row.state])])))
        body += f"<tr><td>{escape(row.name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    note = (
        "Sizes are x × y × z. Beside a number of picks stands their median score. Spectrum: root mean square difference of "
        "the logarithmic power spectrum from the batch's median, in powers of ten."
    )
    if summary.calibrated:
        note += " Below a number of picks: how many of them are expected to be right, and the 95 % bounds."
    return (
        f'<div class="scroll"><table id="batch"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="soft">{note}</p>'
    )


def _thumbnails(summary: BatchSummary) -> str:
    seen = [row for row in summary.rows if row.thumbnail is not None]
    if not seen:
        return '<p class="absent">Not shown: the volumes are not where they were when the batch ran.</p>'
    shown = sorted(seen, key=lambda row: not row.unusual)[:MAX_THUMBNAILS]
    pictures = ""
    for row in shown:
        source = base64.b64encode(row.thumbnail or b"").decode("ascii")
        text = "; ".join([f"{row.total:,}", *row.unusual])
        pictures += (
            '<figure style="margin:0;width:164px"><img style="width:160px" '
            f'alt="{escape(row.name)}" src="data:image/jpeg;base64,{source}">'
            f"<figcaption>{escape(row.name)}<br>{escape(text)}</figcaption></figure>"
        )
    note = "Mean of some planes about the middle of each tomogram; what stands out comes first."
    more = f" {len(shown)} of {len(seen)} are shown." if len(shown) < len(seen) else ""
    return f'<p class="soft">{note}{more}</p><div style="display:flex;flex-wrap:wrap;gap:12px">{pictures}</div>'


def _counts_figure(summary: BatchSummary) -> Figure:
    """Numbers by class, tomogram by tomogram; of many tomograms, their distribution."""
    from matplotlib.figure import Figure

    done = [row for row in summary.rows if row.state == "finished"]
    colours = class_colours(list(summary.classes))
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(summary.classes):
        counts = np.sort([row.counts.get(name, 0) for row in done])[::-1]
        style = line_style(index)
        marker = "." if len(done) <= _MOST_BARS else None
        axes.plot(
            np.arange(1, len(counts) + 1),
            counts,
            style,
            marker=marker,
            color=colour_of(colours, name),
            label=short(name),
        )
    axes.set_xlabel("tomograms, most first")
    axes.set_ylabel("picks" if summary.verb == "pick" else "voxels")
    axes.set_ylim(bottom=0)
    if summary.classes:
        legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure


def _scores_figure(summary: BatchSummary) -> Figure:
    """Histograms of the scores of all picks, by class."""
    from matplotlib.figure import Figure

    colours = class_colours(list(summary.classes))
    figure = Figure(figsize=(9.2, 2.8), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    for name in summary.classes:
        known = [row.score_histogram[name] for row in summary.rows if name in row.score_histogram]
        if known:
            axes.stairs(np.sum(known, axis=0), edges, color=colour_of(colours, name), lw=1.6, label=short(name))
    axes.set_xlabel("score")
    axes.set_ylabel("picks")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure


def _spectra_figure(summary: BatchSummary) -> Figure | None:
    """Power spectra of all tomograms, those that stand out by name; None without volumes."""
    from matplotlib.figure import Figure

    seen = [row for row in summary.rows if row.spectrum is not None]
    if not seen:
        return None
    figure = Figure(figsize=(9.2, 2.8), layout="constrained")
    axes = figure.subplots()
    bins = len(seen[0].spectrum) if seen[0].spectrum is not None else 0
    frequencies = np.linspace(1 / 32, 0.5, bins + 1)[:-1] + (0.5 - 1 / 32) / bins / 2
    odd = [row for row in seen if any(reason.startswith("spectrum") for reason in row.unusual)]
    odd_names = {row.name for row in odd}
    usual = np.array([row.spectrum for row in seen if row.name not in odd_names])
    if len(usual):
        low, middle, high = np.quantile(usual, [0.0, 0.5, 1.0], axis=0)
        axes.fill_between(frequencies, low, high, color="#b9bec6", alpha=0.6, lw=0)
        axes.plot(frequencies, middle, color="#4a525d", lw=1.6, label="median, and range of the others")
    for row in odd[:6]:
        assert row.spectrum is not None
        axes.plot(frequencies, row.spectrum, "--", lw=1.2, label=short(row.name))
    axes.set_xlabel("frequency, 1/voxel")
    axes.set_ylabel("log10 power")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure


_COUNTS_CAPTION = "Each line is a class: its number in each tomogram, tomograms sorted by it."
_SCORES_CAPTION = "Scores of all picks of the batch; a class that the network is unsure of has few near 1."
_SPECTRA_CAPTION = (
    "Power by spatial frequency, relative to its mean: a tomogram with another filter, voxel size or reconstruction "
    "lies beside the band."
)
