"""Templates: a density with its mask on the tomogram's grid, made from a map or from a species of the simulator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy

from robpicker_jax.rotations import point_group, symmetrise
from robpicker_jax.system.errors import InputError

_FLOOR = 0.02  # of the largest density: what is fainter does not count towards the particle's extent
_SURFACE = 0.1  # of the largest density: the particle's surface
_LARGEST_REACH_VOX = 250  # from a template's centre to its face; a box of 500 voxels holds half a GiB


@dataclass(frozen=True, eq=False)
class Template:
    """What is searched for.

    Attributes:
        name: the class that its picks get.
        density: float32 (n, n, n), its centre at voxel `n // 2`, with the sign that the particle has in the tomogram.
        mask: float32 (n, n, n) within [0, 1]: how much each voxel counts.
        voxel_size_angstrom: edge of a voxel, Å.
        diameter_vox: of the particle: no two picks are nearer than half of it.
        symmetry: point group of the density.
        turns: whether the mask turns with the density; a ball need not.
    """

    name: str
    density: np.ndarray
    mask: np.ndarray
    voxel_size_angstrom: float
    diameter_vox: float
    symmetry: str = "C1"
    turns: bool = False

    def __post_init__(self) -> None:
        if self.density.ndim != 3 or len(set(self.density.shape)) != 1 or self.mask.shape != self.density.shape:
            raise InputError(
                f"a template of shape {self.density.shape} with a mask of shape {self.mask.shape}",
                where=self.name,
                fix="give both as cubes of one size",
            )
        point_group(self.symmetry)
        if not self.mask.max() > 0:
            raise InputError("the template's mask is empty", where=self.name, fix="give a larger --diameter")
        inside = self.density[self.mask > 0.5 * self.mask.max()]
        if not np.ptp(inside) > 0:
            raise InputError("the template is constant under its mask", where=self.name, fix="give another map or mask")

    @property
    def edge(self) -> int:
        """Size of the box, voxels."""
        return int(self.density.shape[0])

    @cached_property
    def window(self) -> tuple[int, int]:
        """First voxel, along each axis, that the mask touches, and the one after the last; all where the mask turns."""
        touched = np.argwhere(self.mask > 0)
        return (0, self.edge) if self.turns else (int(touched.min()), int(touched.max()) + 1)

    def mirrored(self) -> Template:
        """The mirror image (x reversed about the centre), to check the hand of tomograms: it should match worse."""
        return replace(self, density=_mirror(self.density), mask=_mirror(self.mask), name=f"{self.name}_mirrored")


def _mirror(box: np.ndarray) -> np.ndarray:
    """x reversed about voxel `n // 2`; of an even box, the first plane stays."""
    turned = box[..., ::-1]
    return np.ascontiguousarray(turned if box.shape[-1] % 2 else np.roll(turned, 1, axis=-1))


def ball_mask(edge: int, radius_vox: float, soft_vox: float = 0.0) -> np.ndarray:
    """float32 (edge, edge, edge): 1 within the radius of voxel `edge // 2`, then a Gaussian edge, cut at three deviations."""
    axis = np.arange(edge) - edge // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return _soft(distance - radius_vox, soft_vox)


def shape_mask(density: np.ndarray, *, level: float = 0.1, grow_vox: float = 2.0, soft_vox: float = 1.0) -> np.ndarray:
    """A mask from the density itself: what exceeds `level` of the maximum magnitude, its holes filled, grown and softened.

    Args:
        density: (n, n, n), of either sign.
        level: share of the largest magnitude.
        grow_vox: how far the mask reaches beyond that surface.
        soft_vox: deviation of its Gaussian edge.
    """
    magnitude = np.abs(density)
    inside = scipy.ndimage.binary_fill_holes(magnitude >= level * magnitude.max())
    outside = scipy.ndimage.distance_transform_edt(~inside)
    return _soft(np.asarray(outside) - grow_vox, soft_vox)


def _soft(beyond: np.ndarray, soft_vox: float) -> np.ndarray:
    """1 where `beyond` ≤ 0, exp(−(beyond / soft)²) outside down to exp(−9 / 2)."""
    if soft_vox <= 0:
        return (beyond <= 1e-6).astype(np.float32)
    value = np.exp(-((np.maximum(beyond, 0) / soft_vox) ** 2))
    return np.where(value < math.exp(-4.5), 0, value).astype(np.float32)


def low_pass(box: np.ndarray, voxel_size_angstrom: float, resolution_angstrom: float) -> np.ndarray:
    """Gaussian low-pass filter that passes one half of the amplitude at the resolution, float32.

    exp(−k² / 2σ²), σ = 1 / (resolution √(2 ln 2)); k in 1/Å.
    """
    sigma = 1 / (resolution_angstrom * math.sqrt(2 * math.log(2)))
    frequencies = [np.fft.fftfreq(size, voxel_size_angstrom) for size in box.shape[:2]]
    frequencies.append(np.fft.rfftfreq(box.shape[2], voxel_size_angstrom))
    gain = [np.exp(-(k**2) / (2 * sigma**2)) for k in frequencies]
    spectrum = np.fft.rfftn(box) * (gain[0][:, None, None] * gain[1][:, None] * gain[2])
    return np.asarray(np.fft.irfftn(spectrum, s=box.shape, axes=(0, 1, 2)), np.float32)


@dataclass(frozen=True)
class TemplateRecipe:
    """How a density becomes a template.

    Attributes:
        diameter_angstrom: of the particle; none: of what stands out of the density's background.
        low_pass_angstrom: resolution; none: twice the voxel size, and never finer than that.
        dark: whether particles are darker than their surroundings in the tomogram.
        mask: "sphere", or "shape", which follows the density and turns with it.
        mask_ratio: the ball's radius over the particle's.
        soft_vox: deviation of the mask's edge.
        symmetry: point group; the density is averaged over it.
        centre: whether the centre of mass of the squared density is moved to the box's centre.
    """

    diameter_angstrom: float | None = None
    low_pass_angstrom: float | None = None
    dark: bool = True
    mask: str = "sphere"
    mask_ratio: float = 1.15
    soft_vox: float = 0.0
    symmetry: str = "C1"
    centre: bool = True

    def make(self, name: str, density: np.ndarray, map_voxel_angstrom: float, voxel_size_angstrom: float) -> Template:
        """The template of a density map.

        Args:
            name: of its class.
            density: (z, y, x), the particle brighter than its surroundings, centre at voxel `size // 2`.
            map_voxel_angstrom: edge of the map's voxels.
            voxel_size_angstrom: edge of the tomogram's voxels.

        Raises:
            InputError: no density stands out, or a recipe that cannot be followed: lengths that do not fit the map's size, or a
                template too large to be searched for.
        """
        if self.mask not in ("sphere", "shape"):
            raise InputError(f"unknown mask {self.mask!r}", where="--mask", fix="sphere or shape")
        resolution = max(self.low_pass_angstrom or 0.0, 2 * voxel_size_angstrom)
        extent = max(density.shape) * map_voxel_angstrom
        if not resolution <= extent:
            raise InputError(
                f"a resolution of {resolution:g} Å is coarser than the whole map, which is {extent:g} Å wide",
                where=name,
                fix="check the low-pass and both voxel sizes, in Å",
            )
        if not (self.diameter_angstrom or 0.0) <= 2 * extent:
            raise InputError(
                f"a particle of {self.diameter_angstrom:g} Å does not fit a map that is {extent:g} Å wide",
                where=name,
                fix="check the diameter and the map's voxel size, in Å",
            )
        half = max(max(size // 2, size - 1 - size // 2) for size in density.shape)
        margin = half + math.ceil(resolution / map_voxel_angstrom)
        before = [margin - size // 2 for size in density.shape]
        faces = np.concatenate([np.take(density, [0, -1], axis=axis).ravel() for axis in range(3)])
        box = np.pad(
            density.astype(np.float32) - np.float32(np.median(faces)),
            [(first, 2 * margin + 1 - first - size) for first, size in zip(before, density.shape, strict=True)],
        )
        box = low_pass(box, map_voxel_angstrom, resolution)
        if not box.max() > 0:
            raise InputError("no density stands out of the background", where=name, fix="invert the map's contrast")
        centre = np.full(3, float(margin))
        if self.centre:
            weight = np.where(box > _FLOOR * box.max(), box, 0) ** 2
            centre = np.array(scipy.ndimage.center_of_mass(weight))
        if self.diameter_angstrom is None:
            inside = np.argwhere(box >= _SURFACE * box.max())
            extent_angstrom = float(np.linalg.norm(inside - centre, axis=1).max()) * map_voxel_angstrom
        else:
            extent_angstrom = self.diameter_angstrom / 2
        radius = extent_angstrom / voxel_size_angstrom
        reach = radius * (self.mask_ratio if self.mask == "sphere" else 1.0) + 3 * self.soft_vox
        if not reach <= _LARGEST_REACH_VOX:
            raise InputError(
                f"a template of {2 * reach:.3g} voxels is too large to be searched for ({2 * _LARGEST_REACH_VOX} at most)",
                where=name,
                fix="bin the tomogram, or check its voxel size, the diameter and the mask's edge",
            )
        edge = int(scipy.fft.next_fast_len(2 * math.ceil(reach + 1) + 1, real=True))
        scale = voxel_size_angstrom / map_voxel_angstrom
        sampled = scipy.ndimage.affine_transform(
            box, np.full(3, scale), offset=centre - scale * (edge // 2), output_shape=(edge,) * 3, order=3
        ).astype(np.float32)
        sampled = symmetrise(sampled, self.symmetry)
        if self.mask == "sphere":
            mask = ball_mask(edge, radius * self.mask_ratio, self.soft_vox)
        else:
            mask = shape_mask(sampled, soft_vox=self.soft_vox)
        return Template(
            name,
            -sampled if self.dark else sampled,
            mask,
            voxel_size_angstrom,
            2 * radius,
            self.symmetry,
            turns=self.mask != "sphere",
        )
