"""How a rough particle list errs where a careful one exists: the rates from which label correction is to learn.

Each rough pick belongs to the nearest careful particle of whatever class within that one's radius, one pick for each
particle. A particle without a pick is missing, a pick without a particle false, a pair of different classes a swap, and
the offsets of the other pairs are the error of position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.published import pairs_of_any_class
from robpicker_jax.system.errors import InputError

_FALSE_PICKS_OF_A_PATCH = 2  # as many as `train.corruption.false_picks` speaks of


@dataclass(frozen=True)
class LabelErrors:
    """What is wrong with rough lists, over all their tomograms.

    Attributes:
        class_names: of label 1, 2, ….
        careful: int64 (c,), careful particles of each class.
        missing: int64 (c,), of these, the ones without a pick.
        swapped: int64 (c, c), pairs of a particle of a class (row) with a pick of another (column).
        false: int64 (c,), picks of each class without a particle.
        offsets_vox: float64 (n, 3), pick minus particle, of pairs of one class.
        extent_vox: voxels of the boxes that hold each tomogram's positions, summed.
    """

    class_names: tuple[str, ...]
    careful: NDArray[np.int64]
    missing: NDArray[np.int64]
    swapped: NDArray[np.int64]
    false: NDArray[np.int64]
    offsets_vox: NDArray[np.float64]
    extent_vox: float

    def corruption(self, patch_size: int) -> dict[str, Any]:
        """The section `train.corruption` of a configuration that errs alike.

        Args:
            patch_size: edge of the patches, voxels: it decides how many false picks lie in one.
        """
        picked = np.maximum(self.careful - self.missing, 1)
        swap = self.swapped.sum(axis=1) / picked
        section: dict[str, Any] = {
            "missing": self._by_class(self.missing / np.maximum(self.careful, 1)),
            "swap": self._by_class(swap),
        }
        most = {
            name: self.class_names[int(row.argmax())]
            for name, row in zip(self.class_names, self.swapped, strict=True)
            if row.any()
        }
        if most:
            section["swap_to"] = most
        in_a_patch = self.false.sum() * patch_size**3 / max(self.extent_vox, patch_size**3)
        section["false_picks"] = round(min(1.0, float(in_a_patch) / _FALSE_PICKS_OF_A_PATCH), 3)
        if self.false.any():
            section["false_classes"] = self._by_class(self.false / self.false.sum())
        section["shifted"] = 1.0
        spread = float(np.sqrt(np.mean(self.offsets_vox**2))) if len(self.offsets_vox) else 0.0
        section["shift_vox"] = round(spread, 2)
        section["untouched"] = 0.0
        return section

    def _by_class(self, values: NDArray[np.float64]) -> dict[str, float]:
        return {name: round(float(value), 3) for name, value in zip(self.class_names, values, strict=True)}


def label_errors(
    careful: Mapping[str, Particles],
    rough: Mapping[str, Particles],
    radii_vox: Sequence[float],
    class_names: Sequence[str],
) -> LabelErrors:
    """Compare rough lists with careful ones of the same tomograms.

    Args:
        careful: particles by tomogram, with labels from 1.
        rough: picks by tomogram, with labels from 1; a tomogram that is absent has none.
        radii_vox: radius of each class, voxels.
        class_names: of label 1, 2, ….

    Raises:
        InputError: there is no careful particle, or a label that is no class's.
    """
    if not any(len(particles) for particles in careful.values()):
        raise InputError("no careful particle to compare with", fix="give lists of annotated tomograms")
    classes = len(class_names)
    for name, particles in (*careful.items(), *rough.items()):
        if len(particles) and not 1 <= particles.labels.min() <= particles.labels.max() <= classes:
            known = ", ".join(f"{label} {each}" for label, each in enumerate(class_names, start=1))
            raise InputError("a class label is none of the classes'", where=name, fix=f"classes: {known}")
    missing, false = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    swapped, counts = np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64)
    offsets, extent = [np.zeros((0, 3))], 0.0
    for name, particles in careful.items():
        picks = rough.get(name, Particles.empty())
        partner = _partners(particles, picks, np.asarray(radii_vox, float))
        counts += _count(particles.labels, classes)
        missing += _count(particles.labels[partner < 0], classes)
        found = partner[partner >= 0]
        false += _count(np.delete(picks.labels, found), classes)
        own, other = particles.labels[partner >= 0], picks.labels[found]
        for (row, column), number in Counter(zip(own.tolist(), other.tolist(), strict=True)).items():
            swapped[row - 1, column - 1] += number if row != column else 0
        moved = picks.positions_vox[found] - particles.positions_vox[partner >= 0]
        offsets.append(moved[own == other])
        both = np.concatenate([particles.positions_vox, picks.positions_vox])
        extent += float(np.prod(np.ptp(both, axis=0) + 1)) if len(both) else 0.0
    return LabelErrors(tuple(class_names), counts, missing, swapped, false, np.concatenate(offsets), extent)


def _partners(particles: Particles, picks: Particles, radii_vox: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of each particle's pick, -1 where there is none: the pairs within a radius, the closest first."""
    partner, taken = np.full(len(particles), -1, np.int64), np.zeros(len(picks), bool)
    pairs = pairs_of_any_class(particles, picks, float(radii_vox.max()))
    pairs = pairs.where(pairs.distances <= radii_vox[particles.labels[pairs.truths] - 1])
    for index in np.argsort(pairs.distances, kind="stable"):
        particle, pick = pairs.truths[index], pairs.picks[index]
        if partner[particle] < 0 and not taken[pick]:
            partner[particle], taken[pick] = pick, True
    return partner


def _count(labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    return np.bincount(labels.astype(np.int64), minlength=classes + 1)[1 : classes + 1]
