"""Particles at the peaks of each class's probability: local maxima, and greedy suppression around the highest voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.picking.clustering.dbscan import ball_offsets
from robpicker_jax.system.errors import InputError

Pooling = Literal["mean", "max"]

_GATHERED = 1 << 22  # values looked at at once
_CANDIDATES = 1 << 12  # candidates that are looked up together


def local_maxima(
    scores: NDArray[np.floating],
    radii_vox: Sequence[float],
    mask: NDArray[np.bool_] | None,
    /,
    *,
    min_probability: float = 0.1,
    window_radii: float = 1.0,
    window: Literal["ball", "cube"] = "ball",
    binning: int = 1,
    pooling: Pooling = "mean",
    at_bin_corner: bool = False,
) -> Particles:
    """The method `local_maxima`: voxels of a class that none within the window exceeds.

    Every voxel of a plateau counts; `picking.min_distance_vox` leaves one of those that lie close together. The published
    RobPicker's: window cube, binning 2, at_bin_corner, and window_radii 1 (0.5 during its training).

    Args:
        scores: float (z, y, x, c), probabilities, class 0 the background.
        radii_vox: radius of class 1, 2, …, voxels.
        mask: unused; picks outside are dropped afterwards.
        min_probability: smallest probability of a pick.
        window_radii: reach of the window, in radii of the class; of a cube rounded down to whole bins.
        window: a ball, or a cube of that half edge.
        binning: edge of the bins to which maps are pooled first, voxels; an incomplete last bin is left out.
        pooling: how: mean or maximum.
        at_bin_corner: a pick lies at its bin's first voxel, not at the bin's centre.

    Raises:
        InputError: options out of range.
    """
    _check(min_probability, window_radii, binning, "window_radii")
    parts = []
    for label, radius in enumerate(radii_vox, start=1):
        map_ = pooled(scores[..., label], binning, pooling)
        reach = window_radii * radius / binning
        if window == "ball":
            offsets = ball_offsets(reach)
        else:
            line = np.arange(-math.floor(reach), math.floor(reach) + 1)
            offsets = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
        found = _not_exceeded(map_, min_probability, offsets)
        parts.append(_particles(found, map_, label, binning, at_bin_corner))
    return Particles.concatenate(parts)


def oks_nms(
    scores: NDArray[np.floating],
    radii_vox: Sequence[float],
    mask: NDArray[np.bool_] | None,
    /,
    *,
    min_probability: float = 0.1,
    distance_radii: float = 1.0,
    oks: float | None = None,
    binning: int = 1,
    pooling: Pooling = "mean",
    at_bin_corner: bool = False,
) -> Particles:
    """The method `oks_nms`: of each class the highest voxel, then the highest that is far enough from all before, and so on.

    Two picks of a class are at least `distance_radii` of its radii apart. The published RobPicker drops voxels whose object
    keypoint similarity exp(−d²/2r²) with a pick is above 0.8, thus nearer than 0.668 radii, which leaves several picks on
    large particles: `oks: 0.8`, with binning 2, at_bin_corner and min_probability 0.01.

    Args:
        scores: float (z, y, x, c), probabilities, class 0 the background.
        radii_vox: radius of class 1, 2, …, voxels.
        mask: unused; picks outside are dropped afterwards.
        min_probability: smallest probability of a pick.
        distance_radii: smallest distance of two picks of a class, in its radii; that distance itself is allowed.
        oks: the similarity above which a voxel is dropped, in place of `distance_radii`.
        binning: edge of the bins to which maps are pooled first, voxels; an incomplete last bin is left out.
        pooling: how: mean or maximum.
        at_bin_corner: a pick lies at its bin's first voxel, not at the bin's centre.

    Raises:
        InputError: options out of range.
    """
    _check(min_probability, distance_radii, binning, "distance_radii")
    if oks is not None and not 0 < oks < 1:
        raise InputError(f"must lie between 0 and 1, got {oks}", where="picking.clustering_options.oks")
    parts = []
    for label, radius in enumerate(radii_vox, start=1):
        map_ = pooled(scores[..., label], binning, pooling)
        share = distance_radii if oks is None else math.sqrt(-2 * math.log(oks))
        found = _greedy(map_, min_probability, share * radius / binning)
        parts.append(_particles(found, map_, label, binning, at_bin_corner))
    return Particles.concatenate(parts)


def pooled(map_: NDArray[np.floating], binning: int, pooling: Pooling) -> NDArray[np.floating]:
    """The mean or maximum of each bin (⌊z / binning⌋, …); incomplete bins at the far faces are left out."""
    if binning == 1:
        return map_
    z, y, x = (size // binning for size in map_.shape)
    whole = map_[: z * binning, : y * binning, : x * binning]
    bins = whole.reshape(z, binning, y, binning, x, binning)
    result: NDArray[np.floating] = bins.mean(axis=(1, 3, 5)) if pooling == "mean" else bins.max(axis=(1, 3, 5))
    return result


def _not_exceeded(map_: NDArray[np.floating], least: float, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels (n, 3) z y x of at least that value which no voxel of the window about them exceeds."""
    candidates = map_ >= least
    reach = int(offsets.max(initial=0))
    if reach:
        # Neighbours along the axes lie in every window. Few voxels pass, and only these need a look at all of it.
        for axis in range(3):
            low, high = [slice(None)] * 3, [slice(None)] * 3
            low[axis], high[axis] = slice(-1), slice(1, None)
            rises = map_[tuple(high)] > map_[tuple(low)]
            falls = map_[tuple(high)] < map_[tuple(low)]
            candidates[tuple(low)] &= ~rises
            candidates[tuple(high)] &= ~falls
    voxels = np.argwhere(candidates)
    if not len(voxels) or not reach:
        return voxels
    padded = np.pad(map_, reach, constant_values=-np.inf)
    flat = padded.reshape(-1)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    at, steps = (voxels + reach) @ strides, offsets @ strides
    keep = np.ones(len(voxels), dtype=bool)
    rows = max(1, _GATHERED // len(steps))
    for begin in range(0, len(voxels), rows):
        part = at[begin : begin + rows]
        keep[begin : begin + rows] = flat[part[:, None] + steps].max(axis=1) <= flat[part]
    return voxels[keep]


def _greedy(map_: NDArray[np.floating], least: float, distance: float) -> NDArray[np.int64]:
    """Voxels (n, 3) z y x by falling value, none nearer to an earlier one than a distance; ties in (z, y, x) order."""
    flat = np.ascontiguousarray(map_).reshape(-1)
    order = np.flatnonzero(flat >= least)
    order = order[np.argsort(-flat[order], kind="stable")]
    # Just below the distance: a voxel at the very distance stays.
    near = ball_offsets(distance)
    near = near[(near**2).sum(axis=1) < distance**2]
    if not len(near):
        near = np.zeros((1, 3), np.int64)
    dropped = np.zeros(map_.shape, dtype=bool)
    dropped_flat = dropped.reshape(-1)
    shape = np.array(map_.shape)
    found = []
    for begin in range(0, len(order), _CANDIDATES):
        left = order[begin : begin + _CANDIDATES]
        while (left := left[~dropped_flat[left]]).size:
            voxel = np.array(np.unravel_index(left[0], map_.shape))
            found.append(voxel)
            around = voxel + near
            around = around[np.all((around >= 0) & (around < shape), axis=1)]
            dropped[tuple(around.T)] = True
    return np.array(found, np.int64).reshape(-1, 3)


def _particles(
    voxels: NDArray[np.int64], map_: NDArray[np.floating], label: int, binning: int, at_bin_corner: bool
) -> Particles:
    centre = 0.0 if at_bin_corner else (binning - 1) / 2
    return Particles(
        voxels[:, ::-1] * binning + centre,
        np.full(len(voxels), label, np.int32),
        scores=map_[tuple(voxels.T)].astype(np.float64),
    )


def _check(min_probability: float, share: float, binning: int, share_name: str) -> None:
    where = "picking.clustering_options"
    if not 0 <= min_probability <= 1:
        raise InputError(f"must lie between 0 and 1, got {min_probability}", where=f"{where}.min_probability")
    if not (math.isfinite(share) and share > 0):
        raise InputError(f"must be a positive number, got {share}", where=f"{where}.{share_name}")
    if binning < 1:
        raise InputError(f"must be at least 1, got {binning}", where=f"{where}.binning")
