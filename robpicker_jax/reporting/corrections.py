"""What the label correction did to labels: given, corrected and true maps side by side (the paper's fig. 2a)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robpicker_jax.reporting.data import Absent, LabelExample, ReportData
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.reporting.style import FAINT, class_colours, legend_below, plain_image_axes, rgb, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_EXAMPLES = 4
_OPACITY = 0.62
_LOST = 0.5  # hatched where a voxel lost at least this share of its label
_LINE_LENGTH = 26  # a row's name beside a picture of about 1.7 inches


def corrections_figure(data: ReportData) -> Figure:
    """One row an example: density, given label, corrected label, true label, and what each class gained and lost.

    Raises:
        Absent: no examples, or none was corrected.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    corrected = [e for e in data.label_examples if e.corrected is not None or e.probabilities is not None]
    examples = corrected[:MAX_EXAMPLES]
    if not examples:
        raise Absent(data.reason("labels", "no label examples were kept"))
    columns = ["density", "given label", "corrected label"]
    if any(e.true is not None for e in examples):
        columns.append("true label")
    columns.append("change")
    names = [s.name for s in data.species]
    palette = np.array([(1.0, 1.0, 1.0), *(rgb(colour) for colour in list(class_colours(names).values())[1:])])

    width = 9.2
    cell = (width - 0.4) / len(columns)
    figure = Figure(figsize=(width, cell * sum(_aspect(e) for e in examples) + 0.8), layout="constrained")
    grid = figure.subplots(
        len(examples), len(columns), squeeze=False, height_ratios=[_aspect(example) for example in examples]
    )
    for row, (axes, example) in enumerate(zip(grid, examples, strict=True)):
        image = grey(example.image, window(example.image)) / 255.0
        pictures = {
            "density": overlay(image, None, None, palette),
            "given label": overlay(image, example.noisy, None, palette),
            "corrected label": corrected_overlay(image, example, palette),
            "change": gained_overlay(image, example, palette),
        }
        if example.true is not None:
            pictures["true label"] = overlay(image, example.true, None, palette)
        for panel, column in zip(axes, columns, strict=True):
            plain_image_axes(panel)
            if row == 0:
                panel.set_title(column)
            if column in pictures:
                panel.imshow(pictures[column], origin="lower", interpolation="nearest")
            else:
                panel.text(0.5, 0.5, "not known", transform=panel.transAxes, ha="center", va="center")
            if column in ("corrected label", "true label") and (example.noisy > 0).any() and column in pictures:
                panel.contour(example.noisy > 0, [0.5], colors="white", linewidths=1.0, linestyles="dashed")
            if column == "change":
                _hatch_lost(panel, example, palette)
        axes[0].set_ylabel("\n".join(short(line, _LINE_LENGTH) for line in example.name.split("\n")[:2]), fontsize=7.5)

    shown = sorted({int(label) for e in examples for label in _labels(e)})
    handles = [
        Patch(facecolor=tuple(palette[k]), label=short(names[k - 1]) if k <= len(names) else f"class {k}")
        for k in shown
        if 1 <= k < len(palette)
    ]
    marks = [
        Line2D([], [], color=FAINT, ls="--", lw=1.2, label="outline of the given label"),
        Patch(facecolor=FAINT, label="change: gained"),
        Patch(facecolor="white", edgecolor=FAINT, hatch="/////", label="change: lost"),
    ]
    legend_below(figure, [*handles, *marks], columns=5)
    return figure


def overlay(
    image: np.ndarray, labels: np.ndarray | None, confidence: np.ndarray | None, palette: np.ndarray
) -> np.ndarray:
    """Labels in their class colours over grey: float (y, x, 3); opacity follows the confidence."""
    base = np.repeat(np.asarray(image, np.float64)[..., None], 3, axis=-1)
    if labels is None:
        return base
    index = np.where((labels >= 0) & (labels < len(palette)), labels, 0)
    opacity = np.where(index > 0, _OPACITY, 0.0)
    if confidence is not None:
        opacity = opacity * np.clip(confidence, 0.15, 1)
    return np.asarray(base * (1 - opacity[..., None]) + palette[index] * opacity[..., None])


def corrected_overlay(image: np.ndarray, example: LabelExample, palette: np.ndarray) -> np.ndarray:
    """The corrected label over grey: with probabilities, each class's colour by its share."""
    if example.probabilities is None:
        return overlay(image, example.corrected, example.confidence, palette)
    return _blended(image, np.clip(np.asarray(example.probabilities, np.float64), 0, 1)[..., 1 : len(palette)], palette)


def gained_overlay(image: np.ndarray, example: LabelExample, palette: np.ndarray) -> np.ndarray:
    """What each class gained by the correction over grey: the class's colour, by the share of the voxel's label."""
    return _blended(image, np.maximum(_difference(example, len(palette)), 0), palette)


def _hatch_lost(panel: Axes, example: LabelExample, palette: np.ndarray) -> None:
    """Hatch what each class lost in the class's colour."""
    lost = _difference(example, len(palette)) <= -_LOST
    for label in range(1, len(palette)):
        if lost[..., label - 1].any():
            colour = tuple(palette[label])
            hatched = panel.contourf(lost[..., label - 1], [0.5, 1.5], colors="none", hatches=["/////"])
            hatched.set_edgecolor(colour)
            hatched.set_linewidth(0)
            panel.contour(lost[..., label - 1], [0.5], colors=[colour], linewidths=1.0)


def _difference(example: LabelExample, n_classes: int) -> np.ndarray:
    """Corrected minus given label of the classes from 1, float (y, x, c - 1), in [-1, 1]."""
    classes = np.arange(1, n_classes)
    given = (example.noisy[..., None] == classes).astype(np.float64)
    if example.probabilities is None:
        assert example.corrected is not None
        return np.asarray((example.corrected[..., None] == classes) - given)
    corrected = np.zeros_like(given)
    shares = np.clip(np.asarray(example.probabilities, np.float64), 0, 1)[..., 1:n_classes]
    corrected[..., : shares.shape[-1]] = shares
    return np.asarray(corrected - given)


def _blended(image: np.ndarray, shares: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colours of the classes from 1, by their shares (y, x, c - 1), over grey."""
    total = shares.sum(-1, keepdims=True)
    colour = (shares @ palette[1 : 1 + shares.shape[-1]]) / np.maximum(total, 1e-9)
    opacity = _OPACITY * np.clip(total, 0, 1)
    blended: np.ndarray = image[..., None] * (1 - opacity) + colour * opacity
    return blended


def _labels(example: LabelExample) -> list[int]:
    maps = [m for m in (example.noisy, example.corrected, example.true) if m is not None]
    return [int(label) for m in maps for label in np.unique(m)]


def _aspect(example: LabelExample) -> float:
    height, width = np.shape(example.image)
    return float(np.clip(height / width, 0.3, 2.0))
