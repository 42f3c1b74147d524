"""The page: one HTML file that holds its pictures, its script and its style, and asks the network for nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.bars import f1_figure
from robpicker_jax.reporting.corrections import corrections_figure
from robpicker_jax.reporting.curves import meta_figure, training_figure
from robpicker_jax.reporting.data import Absent, ReportData
from robpicker_jax.reporting.html_tables import (
    calibration_table,
    definition_list,
    expectation_table,
    score_table,
    tiles,
)
from robpicker_jax.reporting.progress import clean_patches_figure, correction_figure, weights_over_steps_figure
from robpicker_jax.reporting.rejected import by_class, rejected_table
from robpicker_jax.reporting.slices import slice_figure
from robpicker_jax.reporting.style import png_bytes, theme
from robpicker_jax.reporting.thresholds import expectation_figure, threshold_figure
from robpicker_jax.reporting.viewer import MAX_TOMOGRAMS, static, viewer_html
from robpicker_jax.reporting.weights import weights_figure
from robpicker_jax.system.files import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SLICE_FIGURES = 8
_CHARTS = ("results", "thresholds", "expected", "training", "meta", "weights", "clean", "mass", "weights_by_step")
_FIGURES = (
    "f1",
    "thresholds",
    "expected",
    "training",
    "clean_patches",
    "meta_networks",
    "label_correction",
    "correction_over_steps",
    "sample_weights",
    "weights_over_steps",
)
_NAVIGATION = {
    "results": "Results",
    "tomograms": "Tomograms",
    "training": "Training",
    "labels": "Label correction",
    "weights": "Sample weights",
    "configuration": "Configuration",
}


@dataclass(frozen=True)
class Picture:
    """A rendered figure and the sentence that says how to read it.

    Attributes:
        name: its file's name.
        png: the picture.
        caption: the sentence.
        is_chart: whether it shows lines and bars alone, so that a dark page may turn its white dark; densities stay.
    """

    name: str
    png: bytes
    caption: str
    is_chart: bool = False

    def html(self) -> str:
        """The figure as an HTML element, its picture inside."""
        source = base64.b64encode(self.png).decode("ascii")
        caption = escape(self.caption)
        kind = ' class="chart"' if self.is_chart else ""
        return (
            f'<figure><div class="scroll"><img{kind} alt="{caption}" src="data:image/png;base64,{source}"></div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def write_report(data: ReportData, out: Path) -> Path:
    """Write index.html and the figures as PNG files into `out`.

    Every section that cannot be drawn says why. Figures are at most 200 KB each; the page stays below about 8 MB.

    Returns:
        Path of index.html.
    """
    out = Path(out)
    pictures: dict[str, list[Picture]] = {}
    reasons: dict[str, str] = {}
    with theme():
        _draw(pictures, reasons, "results", "f1", lambda: f1_figure(data), _f1_caption(data))
        _draw(pictures, reasons, "thresholds", "thresholds", lambda: threshold_figure(data), _THRESHOLD_CAPTION)
        _draw(pictures, reasons, "expected", "expected", lambda: expectation_figure(data), _EXPECTED_CAPTION)
        _draw(pictures, reasons, "training", "training", lambda: training_figure(data), training_caption(data))
        _draw(pictures, reasons, "clean", "clean_patches", lambda: clean_patches_figure(data), _CLEAN_CAPTION)
        _draw(pictures, reasons, "meta", "meta_networks", lambda: meta_figure(data), _META_CAPTION)
        _draw(pictures, reasons, "labels", "label_correction", lambda: corrections_figure(data), _LABELS_CAPTION)
        _draw(pictures, reasons, "mass", "correction_over_steps", lambda: correction_figure(data), _MASS_CAPTION)
        _draw(pictures, reasons, "weights", "sample_weights", lambda: weights_figure(data), _WEIGHTS_CAPTION)
        steps_figure = partial(weights_over_steps_figure, data)
        _draw(pictures, reasons, "weights_by_step", "weights_over_steps", steps_figure, _WEIGHTS_BY_STEP_CAPTION)
        for index, view in enumerate(data.tomograms[:MAX_SLICE_FIGURES]):
            name = f"slice_{index + 1}_{file_name(view.name)}"
            caption = _SLICE_CAPTION if view.truth is not None else _SLICE_CAPTION_NO_TRUTH
            caption = caption if index == 0 else f"{view.name}, drawn in the same way."
            _draw(pictures, reasons, "slices", name, partial(slice_figure, data, view), caption)
    kept = {picture.name for group in pictures.values() for picture in group}
    for group in pictures.values():
        for picture in group:
            with atomic_path(out / f"{picture.name}.png") as temporary:
                temporary.write_bytes(picture.png)
    for old in out.glob("*.png"):
        if old.stem not in kept and re.fullmatch(r"slice_\d+_.*|" + "|".join(_FIGURES), old.stem):
            old.unlink()  # a figure of a former report that this one has no data for
    index_path = out / "index.html"
    write_text(index_path, render_page(data, pictures, reasons))
    return index_path


def render_page(data: ReportData, pictures: Mapping[str, list[Picture]], reasons: Mapping[str, str]) -> str:
    """The whole page as text.

    Args:
        data: what the report is of.
        pictures: section → its figures; sections are the keys of `ReportData.absent`, "results", "slices", and "expected",
            "clean", "mass" and "weights_by_step", which older runs do not have.
        reasons: section → why it has no figure.
    """

    def figures(section: str) -> str:
        if section in pictures:
            return "".join(picture.html() for picture in pictures[section])
        return _absent(reasons.get(section, ""))

    def further(section: str) -> str:
        """Figures that older runs have no numbers for: the section does without them."""
        return figures(section) if section in pictures else ""

    table = score_table(data)
    viewer, scripts = viewer_html(data) if data.tomograms else ("", "")
    sections = {
        "results": table + figures("results") + further("thresholds") + calibration_table(data),
        "tomograms": _tomograms(data, viewer, figures) + _dropped(data) + _without_truth(data, further),
        "training": figures("training") + further("clean") + "<h3>Meta networks</h3>" + figures("meta"),
        "labels": figures("labels") + further("mass"),
        "weights": figures("weights") + further("weights_by_step"),
        "configuration": _configuration(data),
    }
    headings = {**_NAVIGATION, "results": "Results on the test tomograms", "tomograms": "Test tomograms"}
    body = "\n".join(
        f'<section id="{key}-section"><h2 id="{key}">{headings[key]}</h2>{content}</section>'
        for key, content in sections.items()
    )
    subtitle = " · ".join(part for part in (f"{data.variant} variant", data.machine) if part)
    return static_page(data.title, subtitle, list(_NAVIGATION.items()), body, tiles=tiles(data), scripts=scripts)


def static_page(
    title: str,
    subtitle: str,
    navigation: Sequence[tuple[str, str]],
    sections: str,
    *,
    tiles: str = "",
    scripts: str = "",
) -> str:
    """A page of one file as text.

    Args:
        title, subtitle: plain text.
        navigation: (id of a heading, its name in plain text).
        sections, tiles, scripts: HTML.
    """
    return Template(static("page.html")).substitute(
        title=escape(title),
        style=static("style.css"),
        subtitle=escape(subtitle),
        tiles=tiles,
        nav="".join(f'<a href="#{key}">{escape(text)}</a>' for key, text in navigation),
        sections=sections,
        scripts=scripts,
    )


def file_name(name: str) -> str:
    """A name as part of a file name: letters, digits, dot, dash and underscore, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "tomogram"


def _draw(
    pictures: dict[str, list[Picture]],
    reasons: dict[str, str],
    section: str,
    name: str,
    figure: Callable[[], Figure],
    caption: str,
) -> None:
    try:
        picture = Picture(name, png_bytes(figure()), caption, section in _CHARTS)
    except Absent as reason:
        reasons[section] = str(reason)
    else:
        pictures.setdefault(section, []).append(picture)


def _tomograms(data: ReportData, viewer: str, figures: Callable[[str], str]) -> str:
    if not data.tomograms:
        return _absent(data.reason("tomograms", "no test tomograms were picked"))
    few = f'<p class="soft">The first {MAX_TOMOGRAMS} of {len(data.tomograms)} tomograms are shown.</p>'
    more = few if len(data.tomograms) > MAX_TOMOGRAMS else ""
    return f"{viewer}{more}<details open><summary>Fullest slice of each tomogram</summary>{figures('slices')}</details>"


def _dropped(data: ReportData) -> str:
    """Which limits dropped how many candidates; "" where it is not known."""
    known = [view for view in data.tomograms if view.rejected is not None]
    if not known:
        return ""
    labels = np.concatenate([view.picks.labels for view in known])
    picks = {species.name: int((labels == label).sum()) for label, species in enumerate(data.species, start=1)}
    table = rejected_table(by_class([view.rejected.counts for view in known if view.rejected]), picks=picks)
    return f'<h3 id="dropped-candidates">Candidates that a limit dropped</h3>{table}'


def _without_truth(data: ReportData, further: Callable[[str], str]) -> str:
    """What to expect at each score where there is no truth; "" for runs that are not calibrated."""
    table = expectation_table(data)
    return (
        table and f'<h3 id="without-truth">What a smallest score gives without truth</h3>{further("expected")}{table}'
    )


def _configuration(data: ReportData) -> str:
    parts = []
    if data.config_yaml:
        text = escape(data.config_yaml.rstrip("\n"))
        parts.append(f"<details><summary>Resolved configuration</summary><pre>{text}</pre></details>")
    else:
        parts.append(_absent("the run's configuration was not given"))
    entries = {"machine": data.machine, **data.versions} if data.machine else dict(data.versions)
    entries = {name: value for name, value in entries.items() if value not in (None, "")}
    parts.append(definition_list(entries) if entries else _absent("versions were not recorded"))
    return "".join(parts)


def _absent(reason: str) -> str:
    return f'<p class="absent">Not shown: {escape(reason)}.</p>'


def _f1_caption(data: ReportData) -> str:
    other = f", hatched: {data.comparison.name}" if data.comparison is not None and data.comparison.evaluation else ""
    return f"Height is F1 on the test tomograms, 1 is perfect; solid: this run{other}; a dash means undefined."


_THRESHOLD_CAPTION = (
    "Left: each curve starts at the highest scores and ends, at its dot, with all picks kept; AP is the area under it. "
    "Right: the dot marks the threshold of the highest F1, to the left of it precision is lost and to the right recall."
)


def training_caption(data: ReportData) -> str:
    """How to read the curves, and what the F1 in them is worth."""
    text = (
        "Both losses should fall; when the inner one (the weighted mean over training patches) falls and the outer one "
        "rises, the network learns the noise of the labels. "
    )
    if data.validated_on == "meta":
        return text + (
            "There is no val/: F1 is taken on the meta tomograms. Their labels steer the training and choose the model, so "
            "this F1 is optimistic; that of new tomograms is lower."
        )
    if data.validated_on == "train":
        return text + (
            "There is no val/ and no meta/: F1 is taken on the training tomograms themselves, and tells nothing of new ones."
        )
    return text + "F1 is taken on validation tomograms, never on the test ones."


_EXPECTED_CAPTION = (
    "Precision and recall of the picks of at least a score, as the meta (and validation) tomograms show them; bands are "
    "their 95 % bounds. Set the slider above to the score whose precision you want."
)
_META_CAPTION = (
    "Left to right, where present: the share of the labels that the correction replaces (α) and changes in class, and "
    "the length of the gradient that trains both meta networks."
)
_LABELS_CAPTION = (
    "Each row is one slice of a training patch, at its tomogram's z and around its y and x (voxels): colour inside a "
    "dashed outline was in the given label, fainter colour is less certain. Last column: filled, what the class of that "
    "colour gained by the correction; hatched, what it lost."
)
_MASS_CAPTION = (
    "Above: what the correction adds to the labels of each species and takes from them, in voxels a training patch; it "
    "is zero during the warm-up. Below, where the truth is known: corrected labels should have fewer wrong voxels than "
    "the given ones, precision is the share of changed voxels that were changed rightly, recall the share of wrong "
    "voxels that were."
)
_CLEAN_CAPTION = (
    "Where the outer loss falls and the held-out one, on patches that no step gets, does not, the meta patches are learnt "
    "by heart. The correction's own loss is that of corrupted clean labels after correction: it should restore their "
    "wrong voxels and spoil few right ones."
)
_WEIGHTS_CAPTION = (
    "Each dot is one training patch, boxes span the quartiles and the bar in them is the median; weights that fall "
    "from left to right favour the small species."
)
_WEIGHTS_BY_STEP_CAPTION = (
    "Mean weight of the patches drawn for a species, small to large; the band is one standard deviation over the patches "
    "of a batch, grey lines are the other species. Weights are one during the warm-up."
)
_SLICE_CAPTION = (
    "Mean of up to five slices about z, slightly smoothed; solid rings are true particles that were found, dashed "
    "rings were missed, dots are correct picks (paler: lower score), crosses are false picks; a mark is drawn where "
    "the particle's radius reaches z."
)
_SLICE_CAPTION_NO_TRUTH = (
    "Mean of up to five slices about z, slightly smoothed; rings are picks of the species' radius, drawn where it "
    "reaches z, and the dot in each shows the score, from dark (lowest) to yellow (highest)."
)
