"""Density as grey pictures: thin slabs, a robust window, scale bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NICE_NM = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def slab(density: np.ndarray, index: int, thickness: int) -> np.ndarray:
    """Mean of up to `thickness` slices about `index`: float32 (y, x)."""
    low = max(0, index - thickness // 2)
    high = min(density.shape[0], index + (thickness - 1) // 2 + 1)
    mean: np.ndarray = np.asarray(density[low:high], dtype=np.float32).mean(0)
    return mean


def window(image: np.ndarray, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Grey window from percentiles of the finite voxels; never of zero width."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    if finite.size > 2_000_000:
        finite = finite[:: finite.size // 1_000_000]
    bottom, top = (float(v) for v in np.percentile(finite, (low, high)))
    return (bottom, top) if top > bottom else (bottom - 0.5, bottom + 0.5)


def grey(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Density → uint8 within a window; what is not finite becomes the window's bottom."""
    bottom, top = limits
    scaled = (np.nan_to_num(image, nan=bottom, posinf=top, neginf=bottom) - bottom) / (top - bottom)
    return np.asarray(np.round(np.clip(scaled, 0, 1) * 255), np.uint8)


def scale_bar(width_vox: float, voxel_size_angstrom: float) -> tuple[float, str]:
    """Length in voxels and label of a round scale bar of about a fifth of the width."""
    target_nm = width_vox * voxel_size_angstrom / 10 / 5
    length_nm = min(_NICE_NM, key=lambda nm: abs(np.log(nm / target_nm)))
    return length_nm * 10 / voxel_size_angstrom, f"{length_nm} nm"


def draw_scale_bar(axes: Axes, shape_yx: tuple[int, int], voxel_size_angstrom: float | None) -> None:
    """A scale bar in the lower left corner of axes in unbinned voxels, y up; nothing where the size is unknown."""
    if not voxel_size_angstrom:
        return
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    height, width = shape_yx
    length, text = scale_bar(width, voxel_size_angstrom)
    x, y = 0.03 * width, 0.03 * height
    axes.add_patch(Rectangle((x, y), length, 0.009 * height, facecolor="white", edgecolor="black", lw=0.6, zorder=5))
    axes.text(
        x + length / 2, y + 0.018 * height, text, color="white", ha="center", va="bottom", fontsize=8,
        path_effects=[withStroke(linewidth=1.8, foreground="black")], zorder=5,
    )  # fmt: skip
