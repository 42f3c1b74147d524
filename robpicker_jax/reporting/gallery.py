"""The gallery of an audit: each suspicion with two slices through it, as one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Protocol, runtime_checkable

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.reporting.viewer import static
from robpicker_jax.system.files import write_text

MARGIN = 3.0  # half the edge of a close-up, in radii
_SMALLEST_HALF_VOX = 10
_JPEG_QUALITY = 80
_KINDS = {
    "false": "False: nothing there",
    "wrong_class": "Wrong class",
    "displaced": "Displaced",
    "missing": "Missing: nothing annotated",
}


@runtime_checkable
class Boxes(Protocol):
    """A tomogram that is read by boxes."""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        ...

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Densities (z, y, x) of a box."""
        ...


@dataclass(frozen=True)
class CloseUp:
    """Two slices through a position, as JPEG pictures of the same edge, x to the right, y or z up.

    Attributes:
        xy, xz: the pictures; each is the mean of some slices about the position.
        edge_vox: edge of the pictures, voxels.
        corner_xyz: the voxel in the lower left corner of both.
        radius_vox: of the species, for the ring.
    """

    xy: bytes
    xz: bytes
    edge_vox: int
    corner_xyz: tuple[int, int, int]
    radius_vox: float


def close_up(tomogram: Boxes, position_xyz: np.ndarray, radius_vox: float) -> CloseUp:
    """Slices x–y and x–z through a position; what lies outside the tomogram is black."""
    half = max(_SMALLEST_HALF_VOX, int(np.ceil(MARGIN * radius_vox)))
    centre = np.floor(np.asarray(position_xyz)[::-1] + 0.5).astype(int)
    low, shape = centre - half, np.array(tomogram.shape_zyx)
    first, last = np.clip(low, 0, shape), np.clip(centre + half + 1, 0, shape)
    cube = np.full((2 * half + 1,) * 3, np.nan, np.float32)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    inside = tuple(slice(int(a), int(b)) for a, b in zip(first - low, last - low, strict=True))
    cube[inside] = tomogram.read((z, y, x))
    thick = max(1, round(radius_vox / 3))
    about = slice(half - thick // 2, half + (thick + 1) // 2)
    xy, xz = cube[about].mean(axis=0), cube[:, about].mean(axis=1)
    limits = window(np.stack([xy, xz]), 1, 99)
    corner = int(low[2]), int(low[1]), int(low[0])
    return CloseUp(_jpeg(xy, limits), _jpeg(xz, limits), 2 * half + 1, corner, radius_vox)


def write_gallery(path: Path, found: Particles, close_ups: Sequence[CloseUp], *, subtitle: str, of: int) -> None:
    """Write the gallery.

    Args:
        path: the HTML file.
        found: the n suspicions that are shown, by falling score, with the columns of `auditing.examine.suspicions`.
        close_ups: one for each of them.
        subtitle: what was audited.
        of: how many suspicions there are in all.
    """
    cards = "\n".join(_card(found, index, picture) for index, picture in enumerate(close_ups))
    kinds = [str(kind) for kind in found.extra["kind"]] if len(found) else []
    tomograms = [] if found.tomograms is None else list(dict.fromkeys(found.tomograms.tolist()))
    content = Template(static("gallery.html")).substitute(
        kinds="".join(_option(kind, f"{text} ({kinds.count(kind)})") for kind, text in _KINDS.items()),
        tomograms="".join(_option(name, name) for name in tomograms),
        cards=cards or '<p class="absent">Nothing is suspicious at these scores.</p>',
    )
    tiles = {"shown": len(found), "suspicions": of, **{kind: kinds.count(kind) for kind in _KINDS}}
    page = Template(static("page.html")).substitute(
        title="Audit of annotations",
        style=static("style.css"),
        subtitle=escape(subtitle),
        tiles=_tiles(tiles),
        nav="",
        sections=content,
        scripts=f"<script>\n{static('gallery.js')}</script>",
    )
    write_text(path, page)


def _card(found: Particles, index: int, picture: CloseUp) -> str:
    extra = {name: values[index] for name, values in found.extra.items()}
    assert found.scores is not None
    assert found.class_names is not None
    assert found.tomograms is not None
    kind, tomogram, score = str(extra["kind"]), str(found.tomograms[index]), float(found.scores[index])
    position = found.positions_vox[index]
    target = np.array([float(extra[f"suggested_{axis}_vox"]) for axis in "xyz"]) if kind == "displaced" else None
    place = ", ".join(f"{value:.1f}" for value in position)
    text = f"{found.class_names[index]}" + (f", row {extra['row']}" if extra["row"] else "")
    if kind == "wrong_class":
        text += f" → {extra['suggested_class']}"
    if target is not None:
        text += f", {np.linalg.norm(target - position):.1f} voxels off"
    change = float(extra.get("correction", np.nan))
    if np.isfinite(change):
        text += f"; correction {change:+.2f}"
    views = "".join(
        _view(name, data, picture, position, target, axes)
        for name, data, axes in (("x–y", picture.xy, (0, 1)), ("x–z", picture.xz, (0, 2)))
    )
    return (
        f'<article class="suspicion" data-kind="{escape(kind)}" data-tomogram="{escape(tomogram)}" '
        f'data-score="{score:.4f}"><div class="views">{views}</div>'
        f"<b>{score:.2f} {escape(_KINDS[kind])}</b><span>{escape(text)}</span>"
        f'<span class="soft">{escape(tomogram)} at {place}</span></article>'
    )


def _view(
    name: str,
    data: bytes,
    picture: CloseUp,
    position: np.ndarray,
    target: np.ndarray | None,
    axes: tuple[int, int],
) -> str:
    """One slice with the ring of the radius at the position, and a dashed one at the suggested position."""
    source, edge = base64.b64encode(data).decode("ascii"), picture.edge_vox
    rings = ""
    for place, style in ((position, "given"), (target, "suggested")):
        if place is not None:
            right, up = (float(place[axis]) - picture.corner_xyz[axis] + 0.5 for axis in axes)
            rings += f'<circle class="{style}" cx="{right:.2f}" cy="{edge - up:.2f}" r="{picture.radius_vox:.2f}"/>'
    return (
        f'<figure><img alt="slice {name}" src="data:image/jpeg;base64,{source}">'
        f'<svg viewBox="0 0 {edge} {edge}">{rings}</svg><figcaption>{name}</figcaption></figure>'
    )


def _jpeg(image: np.ndarray, limits: tuple[float, float]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(grey(image, limits)[::-1]).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _option(value: str, text: str) -> str:
    return f'<option value="{escape(value)}">{escape(text)}</option>'


def _tiles(values: Mapping[str, int]) -> str:
    return "".join(
        f'<div class="tile"><b>{count}</b><span>{escape(name.replace("_", " "))}</span></div>'
        for name, count in values.items()
    )
