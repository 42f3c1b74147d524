"""The particles of one class, over all tomograms, in two half sets; and the tomograms that their boxes are read from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from robpicker_jax.annotations import Particles
from robpicker_jax.averaging.extraction import MOST_OUTSIDE, share_outside
from robpicker_jax.averaging.weights import Transfer
from robpicker_jax.volumes import VolumeReader


@dataclass(frozen=True, eq=False)
class Source:
    """A tomogram that subtomograms are read from.

    Attributes:
        name: its name in lists.
        reader: its volume.
        transfer: its missing wedge and CTF.
        stamp: what tells it from others of its name, as JSON can hold it: `datasets.stamps.content_stamp` of its file.
    """

    name: str
    reader: VolumeReader
    transfer: Transfer
    stamp: object = None


@dataclass(frozen=True, eq=False)
class ParticleSet:
    """The particles of one class and what is known of their poses.

    Attributes:
        source: int (n,), which tomogram each is in.
        listed_vox: float (n, 3), positions as listed, x y z.
        positions_vox: float (n, 3), positions now.
        rotations: float (n, 3, 3), reference to tomogram frame, now.
        oriented: bool (n,), whether the list gave an orientation.
        half: int (n,), 1 or 2; drawn once.
        scores: float (n,), cross-correlation of the last alignment; NaN before the first.
        kept: bool (n,), whether a particle goes into the average.
    """

    source: np.ndarray
    listed_vox: np.ndarray
    positions_vox: np.ndarray
    rotations: np.ndarray
    oriented: np.ndarray
    half: np.ndarray
    scores: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def with_(self, **changes: np.ndarray) -> ParticleSet:
        """A copy with some columns replaced."""
        return replace(self, **changes)

    def members(self, half: int, source: int, *, kept: bool = False) -> np.ndarray:
        """Indices of the particles of a half set in one tomogram; with `kept`, those that are averaged."""
        chosen = (self.half == half) & (self.source == source)
        return np.flatnonzero(chosen & self.kept if kept else chosen)

    def digest(self) -> str:
        """Hash of what the lists said."""
        parts = (self.source, self.listed_vox, self.rotations, self.half)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

    def particles(self, names: list[str], label: int, class_name: str) -> Particles:
        """As a particle list, with the half set and whether each was kept as further columns."""
        n = len(self)
        return Particles(
            self.positions_vox,
            np.full(n, label),
            rotations=self.rotations,
            scores=self.scores,
            class_names=np.full(n, class_name),
            tomograms=np.array(names)[self.source] if n else np.zeros(0, np.str_),
            extra={"rlnRandomSubset": self.half, "rpkAveraged": self.kept.astype(np.int64)},
        )


def without_repeats(particles: Particles, least_vox: float) -> Particles:
    """One class's particles of a tomogram without those nearer than `least_vox` to one of a better score.

    Two picks of one particle share its noise: one in each half, they make the FSC too good. Without scores, or where they
    are equal, the one listed first stays.
    """
    n = len(particles)
    order = np.arange(n) if particles.scores is None else np.argsort(-particles.scores, kind="stable")
    near: list[list[int]] = (
        cKDTree(particles.positions_vox).query_ball_point(particles.positions_vox, least_vox) if n else []
    )
    kept = np.ones(n, bool)
    for index in order.tolist():
        if kept[index]:
            kept[[other for other in near[index] if other != index]] = False
    return particles.select(kept)


def gather(lists: list[Particles], sources: list[Source], edge: int, *, seed: int = 0) -> tuple[ParticleSet, int]:
    """The particles of one class whose boxes lie well enough inside, split into halves.

    The split is drawn once, by the seed, so that each half has as many particles of every tomogram as the other, to
    within one.

    Args:
        lists: the class's particles in each tomogram.
        sources: the tomograms.
        edge: edge of the boxes, voxels.
        seed: of the split.

    Returns:
        The set, and how many particles were left out because their boxes reach over the edge.
    """
    rng = np.random.default_rng([seed, 1])
    columns: dict[str, list[np.ndarray]] = {"source": [], "position": [], "rotation": [], "oriented": [], "half": []}
    dropped, turn = 0, 0
    for index, (particles, source) in enumerate(zip(lists, sources, strict=True)):
        inside = share_outside(particles.positions_vox, edge, source.reader.shape_zyx) <= MOST_OUTSIDE
        dropped += int((~inside).sum())
        chosen = particles.select(inside)
        n = len(chosen)
        rotations = np.full((n, 3, 3), np.nan) if chosen.rotations is None else chosen.rotations
        oriented = np.isfinite(rotations).all(axis=(1, 2))
        columns["source"].append(np.full(n, index))
        columns["position"].append(chosen.positions_vox)
        columns["rotation"].append(np.where(oriented[:, None, None], rotations, np.eye(3)))
        columns["oriented"].append(oriented)
        half = np.empty(n, np.int64)
        half[rng.permutation(n)] = (np.arange(n) + turn) % 2 + 1
        columns["half"].append(half)
        turn += n
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    positions, n = joined["position"], len(joined["source"])
    found = ParticleSet(
        source=joined["source"],
        listed_vox=positions,
        positions_vox=positions.copy(),
        rotations=joined["rotation"],
        oriented=joined["oriented"],
        half=joined["half"],
        scores=np.full(n, np.nan),
        kept=np.ones(n, bool),
    )
    return found, dropped
