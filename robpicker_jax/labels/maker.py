"""Label maps from particle coordinates: spheres (fast to draw, noisy) or rotated shapes (slower, clean).

A label map is uint8 (z, y, x), 0 background, else the class label; an instance map says which particle instead.
Where particles touch, a voxel goes to the nearest centre; equal distances go to the particle that comes first by
(z, y, x, label), so the order of the list never matters. Distances are taken in float64 from the unrounded positions, and
every particle is drawn whole before it is cropped: a map of a region equals the crop of the whole map, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import MAX_SPECIES, Species
from robpicker_jax.labels.stamps import Point, Shape, Sphere, Stamp
from robpicker_jax.molecules import species_mask
from robpicker_jax.system.errors import InputError

Region = tuple[slice, slice, slice]
"""A box of a volume, as slices (z, y, x) with start and stop inside the volume (None: its ends) and no step."""


class LabelMaker:
    """Draws label maps of any particles; made once, since preparing masks takes longer than drawing a particle.

    Subclasses: `SphereLabels`, `ShapeLabels` and `PointLabels`.
    """

    _stamps: list[Stamp]
    _needs_rotations = False

    def labels(self, shape_zyx: Sequence[int], particles: Particles, *, region: Region | None = None) -> np.ndarray:
        """Class labels, uint8 (z, y, x), of a volume of `shape_zyx` or of a region of it.

        Args:
            shape_zyx: shape of the whole volume, voxels.
            particles: with labels from 1; those outside the volume are drawn as far as they reach into it.
            region: see `Region`.

        Raises:
            InputError: a label without a species, a missing orientation, or a region outside the volume.
        """
        order, owner = self._draw(shape_zyx, particles, region)
        return _replace(owner, particles.labels[order].astype(np.uint8))

    def instances(self, shape_zyx: Sequence[int], particles: Particles, *, region: Region | None = None) -> np.ndarray:
        """Which particle each voxel belongs to: int32 (z, y, x), the particle's index + 1, 0 background."""
        order, owner = self._draw(shape_zyx, particles, region)
        return _replace(owner, (order + 1).astype(np.int32))

    def bind(self, shape_zyx: Sequence[int], particles: Particles) -> Callable[[Region], np.ndarray]:
        """A function region → label map for one tomogram, its arguments checked now; patches are labelled with it."""
        self._check(particles)
        return lambda region: self.labels(shape_zyx, particles, region=region)

    def _check(self, particles: Particles) -> None:
        if not len(particles):
            return
        low, high = int(particles.labels.min()), int(particles.labels.max())
        if low < 1:
            raise InputError(
                f"{int((particles.labels < 1).sum())} of {len(particles)} particles have no class label",
                fix="give every particle a class label from 1",
            )
        if high > len(self._stamps):
            raise InputError(
                f"class label {high}, but there are {len(self._stamps)} species",
                fix="list every species in data.species, in the order of the class labels",
            )
        if self._needs_rotations:
            unknown = len(particles) if particles.rotations is None else int(_unknown(particles.rotations).sum())
            if unknown:
                raise InputError(
                    f"{unknown} of {len(particles)} particles have no orientation, which shape labels need",
                    fix='give Euler angles, or use sphere labels, or draw them unrotated (unoriented="identity")',
                )

    def _draw(
        self, shape_zyx: Sequence[int], particles: Particles, region: Region | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the particles that reach into a region.

        Returns:
            order: (k,) indices of those particles, sorted as ties are decided.
            owner: (z, y, x), which of them owns each voxel: an index into `order`, plus 1; 0 background.
        """
        self._check(particles)
        start, stop = _bounds(shape_zyx, region)
        size = stop - start
        zyx = particles.positions_vox[:, ::-1]
        reach = np.array([0.0] + [stamp.reach for stamp in self._stamps])[particles.labels]
        near = ((zyx + reach[:, None] >= start) & (zyx - reach[:, None] <= stop - 1)).all(axis=1)
        order = np.flatnonzero(near)
        keys = [particles.labels[order], *zyx[order].T[::-1]]  # last key first in importance: z, y, x, label
        if particles.rotations is not None:
            keys = [*particles.rotations[order].reshape(-1, 9).T, *keys]
        order = order[np.lexsort(keys)]
        owner = np.zeros(int(size.prod()), np.uint16 if len(order) < 2**16 - 1 else np.uint32)
        centres = zyx[order]
        nearest = nearest_voxel(centres)
        fractions = centres - nearest
        corners = nearest.astype(np.int32) - start.astype(np.int32)
        for k, index in enumerate(order.tolist()):
            stamp = self._stamps[particles.labels[index] - 1]
            offsets = stamp.inside(fractions[k], self._rotation(particles, index))
            z, y, x = offsets + corners[k][:, None]
            margin = stamp.reach + 1
            if (corners[k] < margin).any() or (corners[k] + margin >= size).any():
                here = (z >= 0) & (z < size[0]) & (y >= 0) & (y < size[1]) & (x >= 0) & (x < size[2])
                z, y, x = z[here], y[here], x[here]
            flat = (z.astype(np.intp) * size[1] + y) * size[2] + x
            taken = owner.take(flat)
            contested = np.flatnonzero(taken)
            owner[flat] = k + 1
            if contested.size:  # strictly nearer wins; at equal distance the earlier in order stays
                there = np.stack([z[contested], y[contested], x[contested]], axis=1) + start
                rival = taken[contested]
                mine = ((there - centres[k]) ** 2).sum(axis=1)
                theirs = ((there - centres[rival - 1]) ** 2).sum(axis=1)
                lost = mine >= theirs
                owner[flat[contested[lost]]] = rival[lost]
        return order, owner.reshape(size)

    def _rotation(self, particles: Particles, index: int) -> np.ndarray | None:
        return None


class SphereLabels(LabelMaker):
    """A ball of the species' radius at each position: voxels with |voxel − position| ≤ radius.

    Args:
        radii_vox: radius of each species, voxels, in the order of the class labels.
    """

    def __init__(self, radii_vox: Sequence[float]) -> None:
        for label, radius in enumerate(radii_vox, start=1):
            if not radius > 0:
                raise InputError(f"sphere radius {radius} of class label {label}; radii are positive")
        _check_count(len(radii_vox))
        self._stamps = [Sphere(radius) for radius in radii_vox]


class PointLabels(LabelMaker):
    """The voxel nearest to each position, as the published RobPicker's labels are; radii play no part.

    Args:
        n_species: number of species.
    """

    def __init__(self, n_species: int) -> None:
        _check_count(n_species)
        self._stamps = [Point()] * n_species


class ShapeLabels(LabelMaker):
    """The species' mask, rotated into each particle's orientation: voxels where it is at least 0.5 (trilinear).

    Args:
        masks: one (z, y, x) mask of each species, in the order of the class labels; 0/1, boolean, or soft in [0, 1].
            Voxel `size // 2` is the centre.
        unoriented: what becomes of a particle without orientation: "error", or "identity" to draw it unrotated.
    """

    def __init__(self, masks: Sequence[np.ndarray], *, unoriented: Literal["error", "identity"] = "error") -> None:
        for label, mask in enumerate(masks, start=1):
            if np.ndim(mask) != 3:
                raise InputError(f"the mask of class label {label} has {np.ndim(mask)} dimensions; masks have 3")
            if not (np.asarray(mask) >= 0.5).any():
                raise InputError(f"the mask of class label {label} is empty", fix="check its file and its threshold")
        _check_count(len(masks))
        self._needs_rotations = unoriented == "error"
        self._stamps = [Shape(mask) for mask in masks]

    def _rotation(self, particles: Particles, index: int) -> np.ndarray | None:
        if particles.rotations is None or np.isnan(particles.rotations[index, 0, 0]):
            return None
        return np.asarray(particles.rotations[index])


def sphere_labels(
    shape_zyx: Sequence[int], particles: Particles, radii_vox: Sequence[float], *, region: Region | None = None
) -> np.ndarray:
    """Sphere label map, uint8 (z, y, x), of a volume or a region; see `SphereLabels` and `LabelMaker.labels`."""
    return SphereLabels(radii_vox).labels(shape_zyx, particles, region=region)


def shape_labels(
    shape_zyx: Sequence[int],
    particles: Particles,
    masks: Sequence[np.ndarray],
    *,
    region: Region | None = None,
    unoriented: Literal["error", "identity"] = "error",
) -> np.ndarray:
    """Shape label map, uint8 (z, y, x), of a volume or a region; see `ShapeLabels` and `LabelMaker.labels`."""
    return ShapeLabels(masks, unoriented=unoriented).labels(shape_zyx, particles, region=region)


def instance_labels(
    shape_zyx: Sequence[int],
    particles: Particles,
    *,
    radii_vox: Sequence[float] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    region: Region | None = None,
    unoriented: Literal["error", "identity"] = "error",
) -> np.ndarray:
    """Which particle each voxel belongs to: int32 (z, y, x), the particle's index + 1; from spheres or from masks."""
    if (radii_vox is None) == (masks is None):
        raise TypeError("instance_labels takes either radii_vox or masks")
    maker = SphereLabels(radii_vox) if radii_vox is not None else ShapeLabels(masks or (), unoriented=unoriented)
    return maker.instances(shape_zyx, particles, region=region)


def label_maker(
    species: Sequence[Species],
    kind: Literal["sphere", "shape", "point"],
    *,
    voxel_size_angstrom: float | None = None,
    unoriented: Literal["error", "identity"] = "error",
) -> LabelMaker:
    """The label maker that a configuration's species ask for.

    Args:
        species: in the order of their class labels.
        kind: "sphere": balls of `radius_vox`; "shape": masks from the species' mask, density or phantom; "point": single
            voxels.
        voxel_size_angstrom: of the tomograms; shapes need it.
        unoriented: see `ShapeLabels`.

    Raises:
        InputError: shapes without a voxel size, or a species without a usable shape.
    """
    if kind == "sphere":
        return SphereLabels([entry.radius_vox for entry in species])
    if kind == "point":
        return PointLabels(len(species))
    if voxel_size_angstrom is None:
        raise InputError("shape labels need the voxel size, which no header tells", fix="set data.voxel_size_angstrom")
    return ShapeLabels([species_mask(entry, voxel_size_angstrom) for entry in species], unoriented=unoriented)


def _replace(owner: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Map with values[k - 1] where `owner` is k > 0; only the few owned voxels are looked up."""
    result = np.zeros(owner.shape, values.dtype)
    owned = np.flatnonzero(owner)
    result.reshape(-1)[owned] = values[owner.reshape(-1)[owned] - 1]
    return result


def _unknown(rotations: np.ndarray) -> np.ndarray:
    return np.asarray(np.isnan(rotations).any(axis=(1, 2)))


def _check_count(n_species: int) -> None:
    if n_species > MAX_SPECIES:
        raise InputError(f"{n_species} species; label maps are 8-bit and hold at most {MAX_SPECIES}")


def _bounds(shape_zyx: Sequence[int], region: Region | None) -> tuple[np.ndarray, np.ndarray]:
    shape = np.array([int(edge) for edge in shape_zyx])
    if region is None:
        return np.zeros(3, int), shape
    start = np.array([0 if part.start is None else int(part.start) for part in region])
    stop = np.array([edge if part.stop is None else int(part.stop) for part, edge in zip(region, shape, strict=True)])
    stepped = any(part.step not in (None, 1) for part in region)
    if stepped or (start < 0).any() or (stop < start).any() or (stop > shape).any():
        box = ", ".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True))
        raise InputError(f"region [{box}] is not inside a volume of shape {tuple(shape.tolist())}")
    return start, stop
