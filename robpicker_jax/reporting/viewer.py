"""Tomograms for the page's viewer: JPEG slices within a size budget, particles as plain numbers, and the viewer itself."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import astuple
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

import numpy as np

from robpicker_jax.annotations.geometry import euler_from_matrix
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.picking.expectation import Expected
from robpicker_jax.picking.rejection import REASONS
from robpicker_jax.reporting.data import ReportData, SpeciesInfo, TomogramView, decisions_file
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.reporting.outcomes import matches_of
from robpicker_jax.reporting.rejected import COLUMN, Rejected
from robpicker_jax.reporting.style import BACKGROUND_COLOUR, class_colours, score_colours
from robpicker_jax.reviewing.items import fingerprint, is_audit

MAX_TOMOGRAMS = 8
BUDGET_BYTES = 5_000_000
SCRIPTS = ("setup", "review", "formats", "volume", "views", "expected", "dropped", "panel", "main")
"""The parts of the viewer's script in the order in which they are joined; they share one scope."""

_DECIMALS = 6  # of Euler angles, as in written lists
_DIGITS_OF_RATES = 5
_DIGITS_OF_CANDIDATES = 2


class Quality(NamedTuple):
    """How finely a tomogram is shown: longest edge in pixels, JPEG quality, number of slices."""

    edge_px: int
    jpeg: int
    slices: int


LADDER = (
    Quality(640, 85, 200),
    Quality(640, 75, 128),
    Quality(512, 75, 128),
    Quality(512, 65, 96),
    Quality(448, 60, 80),
    Quality(384, 60, 64),
    Quality(320, 55, 56),
    Quality(256, 55, 48),
    Quality(256, 45, 40),
    Quality(192, 45, 32),
    Quality(128, 40, 24),
    Quality(96, 35, 16),
    Quality(64, 30, 8),
)


def viewer_payload(data: ReportData, *, budget_bytes: int = BUDGET_BYTES) -> dict[str, Any]:
    """What the viewer's script reads: classes, and for each tomogram its slices and particles.

    At most `MAX_TOMOGRAMS` tomograms are taken; `budget_bytes` bounds the base64 text of all slices together.
    """
    colours = class_colours([s.name for s in data.species])
    classes = [
        {
            "name": s.name,
            "colour": colours[s.name],
            "radius": float(s.radius_vox),
            "size": s.size_text,
            "expected": [_expected(point) for point in data.expected_of_all.get(s.name, ())],
        }
        for s in data.species
    ]
    shown = data.tomograms[:MAX_TOMOGRAMS]
    tomograms = []
    left = budget_bytes
    for index, view in enumerate(shown):
        record = _tomogram(view, data.species, left // (len(shown) - index))
        left -= sum(len(text) for text in record["slices"])
        tomograms.append(record)
    saved = decisions_file(data.title, data.page)
    return {
        "run": data.title,
        "command": data.command._asdict(),
        "decisions": {"file": saved, "next": data.after_review.with_files(saved)},
        "classes": classes,
        "unknown": {"name": "unknown class", "colour": BACKGROUND_COLOUR},
        "scoreColours": score_colours(32),
        "limits": REASONS,
        "tomograms": tomograms,
    }


def viewer_html(data: ReportData, *, budget_bytes: int = BUDGET_BYTES) -> tuple[str, str]:
    """The viewer's elements, and its data and script, which stand at the end of the page."""
    has_truth = any(view.truth is not None for view in data.tomograms)
    audited = any(is_audit(view.picks) for view in data.tomograms)
    key, note = (_KEY_OF_TRUTH, _NOTE_OF_TRUTH) if has_truth else (_KEY, _NOTE)
    elements = Template(static("viewer/viewer.html")).substitute(
        key=key, truth_hidden="" if has_truth else " hidden", counts_note=_NOTE_OF_AUDIT if audited else note
    )
    payload = embed_json(viewer_payload(data, budget_bytes=budget_bytes))
    parts = "\n".join(static(f"viewer/{name}.js") for name in SCRIPTS)
    script = f'<script>\n(() => {{\n"use strict";\n{parts}}})();\n</script>'
    return (
        f'<div id="viewer-section">{elements}</div>',
        f'<script type="application/json" id="viewer-data">{payload}</script>\n{script}',
    )


_KEY = '<span><i class="ring"></i>particle, with its radius</span>'
_KEY_OF_TRUTH = (
    '<span><i class="ring"></i>pick</span><span><i class="cross"></i>false pick</span>'
    '<span><i class="ring found"></i>true, found</span><span><i class="ring missed"></i>true, missed</span>'
)
_NOTE = "Picks of the whole tomogram at these scores, and how many of each class the list holds."
_NOTE_OF_TRUTH = "Counts of the whole tomogram at these scores: picks, true particles, precision P, recall R, F1."
_NOTE_OF_AUDIT = "Rows with a suspicion at these scores, and how many particles of each class the list holds."


def static(name: str) -> str:
    """A file of the folder `static`, as text."""
    return (files("robpicker_jax.reporting") / "static" / name).read_text(encoding="utf-8")


def embed_json(value: Any) -> str:
    """JSON that may stand inside a <script> element: without "<", ">", "&" and JavaScript's line separators."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def encode_slices(density: np.ndarray, budget_bytes: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Slices as base64 JPEG texts of at most `budget_bytes` in all, first row at the bottom.

    Neighbouring slices are averaged where there are more than the budget allows, and pixels binned.

    Returns:
        The texts, and for each the half-open range of slices it is the mean of.
    """
    texts: list[str] = []
    ranges: list[tuple[int, int]] = []
    for quality in LADDER:
        step = -(-density.shape[0] // quality.slices)
        ranges = [(low, min(low + step, density.shape[0])) for low in range(0, density.shape[0], step)]
        sample = ranges[:: max(1, len(ranges) // 5)]
        limits = window(np.stack([_mean(density, bounds) for bounds in sample]), 0.3, 99.7)
        expected = np.mean([len(_encode(density, bounds, limits, quality)) for bounds in sample]) * len(ranges)
        if expected > 1.05 * budget_bytes and quality is not LADDER[-1]:
            continue
        texts = [_encode(density, bounds, limits, quality) for bounds in ranges]
        if sum(map(len, texts)) <= budget_bytes:
            break
    return texts, ranges


def _tomogram(view: TomogramView, species: Sequence[SpeciesInfo], budget_bytes: int) -> dict[str, Any]:
    texts, ranges = encode_slices(view.density, budget_bytes)
    bin_z = view.bin_zyx[0]
    matches = matches_of(view, species)
    picks = {**_columns(view.picks, len(species)), "score": _scores(view.picks), **_further(view.picks, species)}
    if matches is not None:
        picks["match"] = matches.tolist()
    depth, height, width = view.shape_zyx
    return {
        "name": view.name,
        "list": fingerprint(view.picks),
        "depth": depth,
        "height": height,
        "width": width,
        "voxel": view.voxel_size_angstrom,
        "shape": list(view.volume_shape_zyx or view.shape_zyx),
        # the unbinned z range that a slice is the mean of, inclusive
        "from": [low * bin_z for low, _ in ranges],
        "to": [high * bin_z - 1 for _, high in ranges],
        "slices": texts,
        "picks": picks,
        "dropped": None if view.rejected is None else _dropped(view.rejected, len(species)),
        "truth": None if view.truth is None else _columns(view.truth, len(species)),
    }


def _expected(point: Expected) -> dict[str, Any]:
    """A point of a class's calibration: the score to its last digit, each rate as [value, low, high]."""
    rates = {"precision": point.precision, "recall": point.recall, "perPick": point.particles_per_pick}
    return {"score": float(point.threshold)} | {
        name: None if rate is None else [round(float(share), _DIGITS_OF_RATES) for share in astuple(rate)]
        for name, rate in rates.items()
    }


def _columns(particles: Particles, n_species: int) -> dict[str, list[Any]]:
    """Positions to the last digit: the page saves lists."""
    positions = particles.positions_vox
    known = (particles.labels >= 1) & (particles.labels <= n_species)
    return {
        "x": positions[:, 0].tolist(),
        "y": positions[:, 1].tolist(),
        "z": positions[:, 2].tolist(),
        "label": np.where(known, particles.labels, 0).tolist(),
    }


def _dropped(rejected: Rejected, n_species: int) -> dict[str, Any]:
    """The best dropped candidates, each with the limit that it failed, and how many each limit dropped in all."""
    columns = _columns(rejected.shown, n_species)
    places = {axis: [round(value, _DIGITS_OF_CANDIDATES) for value in columns[axis]] for axis in "xyz"}
    by = rejected.shown.extra[COLUMN].tolist()
    return {**columns, **places, "score": _scores(rejected.shown), "by": by, "totals": rejected.totals}


def _scores(picks: Particles) -> list[float | None] | None:
    if picks.scores is None or not np.isfinite(picks.scores).any():
        return None
    return [float(s) if np.isfinite(s) else None for s in picks.scores]


def _further(picks: Particles, species: Sequence[SpeciesInfo]) -> dict[str, Any]:
    """What else saved lists carry, and what an audit says of each row."""
    found: dict[str, Any] = {}
    if picks.cluster_sizes is not None:
        found["size"] = picks.cluster_sizes.tolist()
    if picks.rotations is not None:
        known = np.isfinite(picks.rotations).all(axis=(1, 2))
        angles = {how: euler_from_matrix(picks.rotations, how) for how in ("relion", "deepfinder")}
        rows = {how: np.round(values, _DECIMALS) for how, values in angles.items()}
        rows["matrix"] = picks.rotations.reshape(len(picks), 9)
        found["rotations"] = {
            how: [row if is_known else None for row, is_known in zip(values.tolist(), known, strict=True)]
            for how, values in rows.items()
        }
    if is_audit(picks):
        names = [entry.name for entry in species]
        suggested = [names.index(name) + 1 if name in names else 0 for name in picks.extra["suggested_class"].tolist()]
        places = {axis: [float(v) for v in picks.extra[f"suggested_{axis}_vox"]] for axis in "xyz"}
        found |= {"kind": picks.extra["kind"].tolist(), "suggested": {"label": suggested, **places}}
    return found


def _mean(density: np.ndarray, bounds: tuple[int, int]) -> np.ndarray:
    mean: np.ndarray = np.asarray(density[bounds[0] : bounds[1]], np.float32).mean(0)
    return mean


def _encode(density: np.ndarray, bounds: tuple[int, int], limits: tuple[float, float], quality: Quality) -> str:
    from PIL import Image

    image = Image.fromarray(grey(_mean(density, bounds), limits)[::-1])
    longest = max(image.size)
    if longest > quality.edge_px:
        size = [max(1, round(edge * quality.edge_px / longest)) for edge in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality.jpeg, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
