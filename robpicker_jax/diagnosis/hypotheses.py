"""Readings of the coordinates: which of them puts the picks on particles?

Every reading is scored by the density at the picks against random positions of the tomogram: a wrong one finds nothing
there. The score of a reading in one tomogram is mean(c) √m, with c the standardised contrast of each pick
(`LocalDensity.standard_contrast`, 0 for a pick outside the volume) and m the number of picks, counting those in one cube
of two radii once: picks that a reading puts close together are not independent. Where the picks are unrelated to the
density, the score is about normal with mean 0 and standard deviation 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.bounds import inside
from robpicker_jax.diagnosis.local_density import LocalDensity

BINNINGS = (2, 3, 4, 5, 6, 8, 10)
AS_IS = "as they are"
_MOST_PER_CLASS, _MOST = 60, 400
_LEAST_SCORE = 6.0
_LEAST_INSIDE = 0.9


@dataclass(frozen=True)
class Hypothesis:
    """One reading: positions[:, order] × factor, plus half the volume or the header's origin, mirrored along `flip`.

    Attributes:
        name: as tables show it.
        code: code of the finding when it fits best; "" for the reading as it is.
        fix: how to fix the file.
        order: column of the file that holds x, y, z.
        flip: axes mirrored, of "xyz".
        factor: the file's unit in voxels.
        centred: measured from the volume's centre.
        origins: how many times the header's origin is added: -1 takes it off.
    """

    name: str
    code: str = ""
    fix: str = ""
    order: tuple[int, ...] = (0, 1, 2)
    flip: str = ""
    factor: float = 1.0
    centred: bool = False
    origins: int = 0

    def apply(
        self, positions_vox: np.ndarray, shape_zyx: tuple[int, int, int], origin_vox: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> np.ndarray:
        """The positions (n, 3) x y z under this reading; `origin_vox`: where viewers place the first voxel, x y z."""
        size = np.array(shape_zyx[::-1], dtype=np.float64)
        moved = positions_vox[:, self.order] * self.factor + self.origins * np.asarray(origin_vox)
        if self.centred:
            moved = moved + size / 2
        mirrored = np.array([axis in self.flip for axis in "xyz"])
        return np.asarray(np.where(mirrored, size - 1 - moved, moved))


@dataclass(frozen=True)
class Score:
    """How one reading fits one tomogram.

    Attributes:
        z: the score, negative where the picks are darker than their surroundings.
        inside: share of the picks inside the volume.
        n: number of picks looked at.
    """

    z: float
    inside: float
    n: int


def stated_pixels(lists: Sequence[Particles]) -> list[float]:
    """Pixel sizes in Å that lists state in a column, such as `rlnImagePixelSize`, whoever uses it; each once."""
    columns = [values for part in lists for name, values in part.extra.items() if "pixelsize" in name.lower()]
    numbers = [column.astype(float) for column in columns if column.dtype.kind in "iuf"]
    found = {round(float(size), 4) for column in numbers for size in np.unique(column) if 0 < size < np.inf}
    return sorted(found)[:4]


def readings(
    voxel_size_angstrom: float | None, stated_angstrom: Sequence[float] = (), *, with_origins: bool = False
) -> list[Hypothesis]:
    """The readings to compare, the one as it is first; those in Å only where the voxel size is known.

    Args:
        voxel_size_angstrom: of the tomograms.
        stated_angstrom: other pixel sizes that are stated somewhere; coordinates may count such pixels.
        with_origins: whether a volume's header has an origin, which coordinates may or may not hold.
    """
    found = [Hypothesis(AS_IS)]
    for order in permutations(range(3)):
        if order != (0, 1, 2):
            text = " ".join("xyz"[order.index(k)] for k in range(3))
            found.append(
                Hypothesis(f"columns are {text}", "axes_swapped", f"the columns are {text}: reorder them", order)
            )
    for n in (1, 2, 3):
        for axes in combinations("xyz", n):
            flip = "".join(axes)
            fix = ", ".join(f"replace {axis} by size_{axis} − 1 − {axis}" for axis in axes)
            found.append(Hypothesis(f"mirrored in {' '.join(axes)}", "flipped", fix, flip=flip))
    for axis in "yz":
        fix = f"the volume was turned about x after picking (trimvol -rx, clip rotx): swap y and z, mirror {axis}"
        found.append(Hypothesis(f"y z swapped, {axis} mirrored", "axes_swapped", fix, (0, 2, 1), axis))
    v = voxel_size_angstrom
    lengths = {"in Å": 1 / v, "in nm": 10 / v} if v else {}
    # Where a unit and a binning factor coincide, Å is likelier than binning, and binning likelier than nm.
    near = {"in Å": (1.0,), "in nm": (1.0, *(1 / b for b in BINNINGS), *map(float, BINNINGS))}
    lengths = {k: f for k, f in lengths.items() if all(abs(np.log(f / other)) > 0.05 for other in near[k])}
    for name, factor in lengths.items():
        found.append(
            Hypothesis(name, "in_angstrom", f"multiply them by {factor:.6g} (voxels of {v:g} Å)", factor=factor)
        )
    for b in BINNINGS:
        for factor in (1 / b, float(b)):
            if all(abs(np.log(factor / other)) > 0.05 for other in lengths.values()):
                how = f"divide them by {b}" if factor < 1 else f"multiply them by {b}"
                name = f"of a volume binned {b} times {'less' if factor < 1 else 'more'}"
                found.append(
                    Hypothesis(name, "binning", f"{how}, or use the volume they were picked in", factor=factor)
                )
    for size in stated_angstrom if v else ():
        factor = size / v if v else 1.0
        if abs(np.log(factor)) > 0.05 and all(abs(np.log(factor / h.factor)) > 0.01 for h in found):
            fix = f"multiply them by {factor:.6g}: they count pixels of {size:g} Å"
            found.append(Hypothesis(f"in pixels of {size:g} Å", "binning", fix, factor=factor))
    found.append(Hypothesis("from the centre", "centred", "add half the volume's size", centred=True))
    if v:
        fix = f"divide by {v:g} and add half the volume's size"
        found.append(Hypothesis("from the centre, in Å", "centred", fix, factor=1 / v, centred=True))
    if v and with_origins:
        found += _from_origins(v)
    return found


def _from_origins(voxel_size_angstrom: float) -> list[Hypothesis]:
    """Coordinates that hold the origin of the volume's header, or from which it was taken off wrongly."""
    v = voxel_size_angstrom
    return [
        Hypothesis("with the header's origin", "origin", f"subtract the header's origin over {v:g} Å", origins=-1),
        Hypothesis(
            "with the header's origin, in Å",
            "origin",
            f"subtract the header's origin, then divide by {v:g}",
            factor=1 / v,
            origins=-1,
        ),
        Hypothesis(
            "the header's origin taken off wrongly",
            "origin",
            "the list does not count from the header's origin: give its format the option origin_angstrom=0,0,0",
            origins=1,
        ),
    ]


def score_readings(
    density: LocalDensity,
    particles: Particles,
    radii_vox: Mapping[int, float],
    hypotheses: Sequence[Hypothesis],
    origin_vox: Sequence[float] = (0.0, 0.0, 0.0),
) -> dict[str, Score]:
    """Score of each reading in one tomogram.

    Args:
        density: the tomogram.
        particles: its particles, as the file was read.
        radii_vox: radius of each class label; other labels take the median radius.
        hypotheses: the readings.
        origin_vox: where viewers place the first voxel, x y z.
    """
    chosen = particles.select(_subset(particles.labels))
    n = len(chosen)
    if n == 0:
        return {}
    usual = float(np.median(list(radii_vox.values())))
    shape = (density.shape_zyx[0], density.shape_zyx[1], density.shape_zyx[2])
    moved = np.stack([hypothesis.apply(chosen.positions_vox, shape, origin_vox) for hypothesis in hypotheses])
    within = inside(moved.reshape(-1, 3), shape).reshape(moved.shape[:2])
    values = np.zeros(moved.shape[:2])
    for label in np.unique(chosen.labels):
        mine = np.flatnonzero(chosen.labels == label)
        radius = radii_vox.get(int(label), usual)
        positions = moved[:, mine].reshape(-1, 3)
        values[:, mine] = density.standard_contrast(positions, radius).reshape(len(hypotheses), -1)
    values[~within] = 0
    scores = {}
    for k, hypothesis in enumerate(hypotheses):
        cells = len(np.unique(np.floor(moved[k, within[k]] / (2 * usual)), axis=0))
        z = values[k].mean() * np.sqrt(max(cells, 1))
        scores[hypothesis.name] = Score(float(z), float(within[k].mean()), n)
    return scores


def pool(parts: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """Scores over several tomograms (Stouffer: the sum over the root of their number)."""
    parts = [part for part in parts if part]
    return {
        name: Score(
            sum(part[name].z for part in parts) / len(parts) ** 0.5,
            sum(part[name].inside * part[name].n for part in parts) / sum(part[name].n for part in parts),
            sum(part[name].n for part in parts),
        )
        for name in (parts[0] if parts else ())
        if all(name in part for part in parts)
    }


def best_reading(scores: Mapping[str, Score], hypotheses: Sequence[Hypothesis]) -> Hypothesis | None:
    """The reading that fits clearly better than the positions as they are; None where there is no such reading."""
    candidates = [h for h in hypotheses if h.name in scores and scores[h.name].inside >= _LEAST_INSIDE]
    if not candidates:
        return None
    best = max(candidates, key=lambda hypothesis: abs(scores[hypothesis.name].z))
    if not best.code:
        return None
    z, given = abs(scores[best.name].z), abs(scores[AS_IS].z)
    return best if z >= max(_LEAST_SCORE, 1.5 * given + 3) else None


def _subset(labels: np.ndarray) -> np.ndarray:
    """Indices of a bounded number of particles, of every class some."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:_MOST_PER_CLASS] for label in np.unique(labels)]
    indices = np.concatenate([*chosen, np.zeros(0, np.intp)])
    return np.sort(rng.permutation(indices)[:_MOST])
