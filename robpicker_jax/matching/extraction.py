"""From score maps to picks: peaks no nearer than a radius, above a cut-off, and limits on their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from robpicker_jax.annotations import Particles
from robpicker_jax.system.errors import InputError

CUTOFFS = ("none", "gaussian", "extreme")
_FEWEST = 50  # peaks from which a distribution can be fitted
_QUANTILES = (0.5, 0.8)  # of their heights: most peaks are noise


@dataclass(frozen=True)
class Extraction:
    """Which peaks become picks.

    Attributes:
        radius_vox: no two picks are nearer than this.
        cutoff: "extreme": the distribution of peaks of noise, fitted to the bulk of all peaks; "gaussian": Rickgauer's,
            which takes scores for independent and normally distributed; "none".
        false_positives: picks of pure noise that the cut-off lets pass on average, n_FP.
        min_score: smallest score.
        score_fraction: smallest score as a share of the best one.
        max_picks: the most picks.
        tophat: whether a peak must also be sharp: its white top-hat exceeds the same cut-off of the top-hat's map.
        edge_vox: width of the rim along the faces where nothing is picked; templates reach beyond the volume there.
    """

    radius_vox: float
    cutoff: str = "extreme"
    false_positives: float = 1.0
    min_score: float | None = None
    score_fraction: float | None = None
    max_picks: int | None = None
    tophat: bool = False
    edge_vox: int = 0

    def __post_init__(self) -> None:
        if self.cutoff not in CUTOFFS:
            raise InputError(f"unknown cut-off {self.cutoff!r}", where="--cutoff", fix=f"one of {', '.join(CUTOFFS)}")
        if not self.radius_vox > 0:
            raise InputError(f"a radius of {self.radius_vox:g} voxels", where="--distance", fix="give more than 0")
        if not self.false_positives > 0:
            raise InputError(
                f"{self.false_positives:g} expected false positives", where="--false-positives", fix="give more than 0"
            )


@dataclass(frozen=True, eq=False)
class Peaks:
    """Voxels of the score map that are picks, by falling score.

    Attributes:
        voxels_zyx: int64 (n, 3).
        scores: float32 (n,).
        cutoff: smallest score that was let pass by statistics; −inf without a cut-off.
    """

    voxels_zyx: np.ndarray
    scores: np.ndarray
    cutoff: float

    def __len__(self) -> int:
        return len(self.voxels_zyx)


def rim(diameter_vox: float) -> int:
    """The customary `Extraction.edge_vox`: half a diameter, so that whole particles alone are picked."""
    return round(diameter_vox / 2)


def searched(shape_zyx: Sequence[int], edge_vox: int, mask: np.ndarray | None) -> np.ndarray:
    """bool (z, y, x): where picks may lie. Statistics are taken there as well, after the mask."""
    inside = np.zeros(tuple(shape_zyx), bool)
    inner = tuple(slice(edge_vox, max(size - edge_vox, edge_vox)) for size in shape_zyx)
    inside[inner] = True
    return inside if mask is None else inside & mask


def find_peaks(
    scores: np.ndarray,
    settings: Extraction,
    *,
    mask: np.ndarray | None = None,
    deviation: float | None = None,
    angles: int = 1,
) -> Peaks:
    """The peaks of a score map, greedily from the highest: each forbids others within the radius.

    A peak is a voxel whose score no neighbour among the 26 exceeds. So what is left at the flank of a peak that was
    taken is none.

    Args:
        scores: float32 (z, y, x).
        settings: see `Extraction`.
        mask: bool (z, y, x); applied before all statistics.
        deviation: standard deviation of the scores of single angles, for the cut-off "gaussian".
        angles: number of angles, for the same.

    Raises:
        InputError: the cut-off "gaussian" without a deviation.
    """
    inside = searched(scores.shape, settings.edge_vox, mask)
    local = inside & (scores >= scipy.ndimage.maximum_filter(scores, size=3, mode="constant", cval=-np.inf))
    local &= scores > 0
    voxels = np.argwhere(local)
    heights = scores[local]
    order = np.lexsort((np.arange(len(heights)), -heights))
    voxels, heights = voxels[order], heights[order]
    kept = apart(voxels, settings.radius_vox)
    voxels, heights = voxels[kept], heights[kept]
    cutoff = -math.inf
    if settings.cutoff == "gaussian":
        if deviation is None:
            raise InputError("the cut-off gaussian needs the deviation of single scores", where="--cutoff")
        cutoff = gaussian_cutoff(deviation, int(inside.sum()) * angles, settings.false_positives)
    elif settings.cutoff == "extreme":
        cutoff = extreme_cutoff(heights, settings.false_positives)
    passed = heights > cutoff
    if settings.tophat:
        sharpness = _tophat(scores)
        values = sharpness[tuple(voxels.T)]
        passed &= values > extreme_cutoff(np.sort(values)[::-1], settings.false_positives)
    if settings.min_score is not None:
        passed &= heights >= settings.min_score
    if settings.score_fraction is not None and len(heights):
        passed &= heights >= settings.score_fraction * heights[0]
    chosen = np.flatnonzero(passed)[: settings.max_picks]
    return Peaks(voxels[chosen], heights[chosen].astype(np.float32), cutoff)


def _tophat(scores: np.ndarray) -> np.ndarray:
    """White top-hat with the cross of a voxel and its six neighbours: how far a voxel stands above its surroundings."""
    return np.asarray(scipy.ndimage.white_tophat(scores, footprint=scipy.ndimage.generate_binary_structure(3, 1)))


def apart(voxels: np.ndarray, radius: float) -> np.ndarray:
    """Which points are kept when each, in order, forbids the later ones nearer than the radius; int (m,)."""
    if not len(voxels):
        return np.zeros(0, np.intp)
    forbidden = np.zeros(len(voxels), bool)
    tree = scipy.spatial.cKDTree(voxels)
    kept = []
    for index, voxel in enumerate(voxels):
        if forbidden[index]:
            continue
        kept.append(index)
        near = tree.query_ball_point(voxel, radius * (1 - 1e-9))
        forbidden[near] = True
    return np.array(kept, np.intp)


def single_deviation(mean: np.ndarray, deviation: np.ndarray, inside: np.ndarray) -> float:
    """√⟨s²⟩ of the scores of single angles, from their mean and deviation at each voxel; plane by plane, in float64."""
    squares, count = 0.0, 0
    for m, d, here in zip(mean, deviation, inside, strict=True):
        squares += float((m[here].astype(np.float64) ** 2 + d[here].astype(np.float64) ** 2).sum())
        count += int(here.sum())
    return math.sqrt(squares / count) if count else 0.0


def gaussian_cutoff(deviation: float, trials: int, false_positives: float) -> float:
    """θ = √2 σ erfc⁻¹(2 n_FP / N): what n_FP of N independent normal scores of deviation σ exceed (Rickgauer 2017).

    Scores of neighbouring angles and voxels depend on each other, and the density of cells is no white noise: it
    bounds the candidates of real tomograms, and is no threshold for picks.
    """
    share = 2 * false_positives / max(trials, 1)
    return 0.0 if share >= 1 else float(math.sqrt(2) * deviation * scipy.special.erfcinv(share))


def extreme_cutoff(heights: np.ndarray, false_positives: float) -> float:
    """The height that n_FP peaks of noise exceed, if four fifths of the peaks, the lower ones, are noise.

    Heights of noise peaks are taken to be the largest of m independent normal scores, with the distribution
    F(h) = Φ(h / σ)^m. Their median and 0.8-quantile give m and σ; then θ = F⁻¹(1 − n_FP / n) for n peaks. With
    fewer than 50 peaks there is no fit, and θ = −∞.

    Args:
        heights: of all peaks, in any order.
        false_positives: n_FP.
    """
    n = len(heights)
    if n < _FEWEST:
        return -math.inf
    low, high = (float(value) for value in np.quantile(heights, _QUANTILES))
    if not 0 < low < high:
        return high

    def standard(probability: float, log_m: float) -> float:
        """Φ⁻¹(p^(1/m)), exact for large m too."""
        return float(-scipy.special.ndtri(-math.expm1(math.log(probability) / math.exp(log_m))))

    def ratio(log_m: float) -> float:
        return standard(_QUANTILES[1], log_m) / standard(_QUANTILES[0], log_m) - high / low

    first, last = math.log(8), math.log(1e12)
    if ratio(first) < 0:  # broader than any such distribution: the widest of them
        log_m = first
    elif ratio(last) > 0:
        log_m = last
    else:
        log_m = float(scipy.optimize.brentq(ratio, first, last))
    share = min(max(1 - false_positives / n, 1e-12), 1 - 1e-15)
    return low / standard(_QUANTILES[0], log_m) * standard(share, log_m)


def decide_classes(lists: Sequence[Particles], radii_vox: Sequence[float], *, largest_first: bool = False) -> Particles:
    """One list of several templates' picks: where two are nearer than the larger of their radii, the better one stays.

    Args:
        lists: the picks of each template, with scores.
        radii_vox: how near picks of each may come to others.
        largest_first: whether a larger template decides before a smaller one, instead of the better score: scores of
            small templates are high at large particles too.

    Returns:
        By falling score.
    """
    everything = Particles.concatenate(lists)
    if not len(everything):
        return everything
    radius = np.concatenate([np.full(len(part), r) for part, r in zip(lists, radii_vox, strict=True)])
    scores = everything.scores
    assert scores is not None
    order = np.lexsort((-scores, -radius)) if largest_first else np.argsort(-scores, kind="stable")
    tree = scipy.spatial.cKDTree(everything.positions_vox)
    forbidden = np.zeros(len(everything), bool)
    kept = []
    for index in order:
        if forbidden[index]:
            continue
        kept.append(int(index))
        near = np.array(tree.query_ball_point(everything.positions_vox[index], float(radius.max())))
        away = np.linalg.norm(everything.positions_vox[near] - everything.positions_vox[index], axis=1)
        forbidden[near[away < np.maximum(radius[near], radius[index])]] = True
    chosen = np.array(kept, np.intp)
    return everything.select(chosen[np.argsort(-scores[chosen], kind="stable")])
