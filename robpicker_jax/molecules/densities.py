"""Density and mask of each species on the tomogram's grid, from a built-in phantom or from the user's MRC map.

Densities are in Da/Å³, so that the sum times the voxel volume is the molecular weight and every species has the density
of protein inside. All boxes are cubes of odd size: the centre is the middle voxel. In a map or mask
file of even size the centre is voxel `size // 2`, as RELION, EMAN and SHREC's masks have it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from robpicker_jax.config import Species
from robpicker_jax.molecules.phantoms import PROTEIN_DENSITY, phantom_density
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, read_map, read_volume

MASK_BLUR_ANGSTROM = 10.0
"""Gaussian blur of a density before it is thresholded into a mask.

Chosen against the masks of SHREC 2019: from density maps of ten of its species, a blur of 10 Å (one voxel) and a
threshold of 0.1 of the maximum give their voxel counts within 6 % on average.
"""

# In a map that is blurred by this much, the surface at half the peak encloses the molecule's volume within about 10 %.
_WEIGHT_BLUR_ANGSTROM = 5.0
_FLOOR = 0.02  # of the maximum: what is fainter does not belong to the particle


def species_density(
    species: Species, voxel_size_angstrom: float, *, map_voxel_size_angstrom: float | None = None
) -> np.ndarray:
    """The density of one particle of a species.

    Args:
        species: with a `phantom` or a `density` file. A phantom has its own molecular weight; a map is scaled to
            `molecular_weight_kda`, or to the weight of its own volume (see `estimate_weight_kda`).
        voxel_size_angstrom: voxel size of the result.
        map_voxel_size_angstrom: voxel size of the map, if its header is wrong or does not say.

    Returns:
        float32 (n, n, n), odd n, in Da/Å³.

    Raises:
        InputError: neither phantom nor density, unreadable map, unknown voxel size, a map without positive density.
    """
    if species.phantom is not None:
        return phantom_density(species.phantom, voxel_size_angstrom)
    if species.density is None:
        raise InputError(f"species {species.name!r} has no density", fix="give it a phantom or a density map")
    volume = read_volume(species.density)
    size = map_voxel_size_angstrom or volume.voxel_size_angstrom
    if size is None:
        raise InputError(
            "the header does not give the voxel size (it says 0 or 1)",
            where=species.density,
            fix="write the voxel size, in Å, into the header",
        )
    return density_from_map(
        volume.data,
        size,
        voxel_size_angstrom,
        molecular_weight_kda=species.molecular_weight_kda,
        where=species.density,
    )


def density_from_map(
    data: np.ndarray,
    map_voxel_size_angstrom: float,
    voxel_size_angstrom: float,
    *,
    molecular_weight_kda: float | None = None,
    where: object = "",
) -> np.ndarray:
    """Bring a density map of any scale and sampling to Da/Å³ on the tomogram's grid.

    The background, the median of the box's faces, is subtracted, and what is fainter than three standard deviations of
    the faces or 2 % of the maximum is set to 0.

    Args:
        data: (z, y, x) map, particle brighter than its surroundings, centre at voxel `size // 2`.
        map_voxel_size_angstrom, voxel_size_angstrom: sampling of the map and of the result.
        molecular_weight_kda: weight to scale to; None for the weight of the map's own volume.
        where: what an error names.

    Returns:
        float32 (n, n, n), odd n.

    Raises:
        InputError: no voxel stands out of the background.
    """
    box = _resample(_odd_cube(np.asarray(data, np.float32)), map_voxel_size_angstrom / voxel_size_angstrom)
    faces = np.concatenate([np.take(box, [0, -1], axis=axis).ravel() for axis in range(3)])
    background = float(np.median(faces))
    noise = 1.4826 * float(np.median(np.abs(faces - background)))
    box = box - background
    box[box < max(3 * noise, _FLOOR * float(box.max()))] = 0
    if not box.max() > 0:
        raise InputError("no density stands out of the background", where=where, fix="invert the map's contrast")
    box = _trim(box, box > 0)
    weight = molecular_weight_kda or estimate_weight_kda(box, voxel_size_angstrom)
    return box * np.float32(weight * 1000 / (box.sum(dtype=np.float64) * voxel_size_angstrom**3))


def estimate_weight_kda(density: np.ndarray, voxel_size_angstrom: float) -> float:
    """Molecular weight of the volume that a density map encloses at half its peak, protein weighing 0.81 Da/Å³.

    The peak is taken as the 98th percentile of the positive voxels, so that a few extreme ones do not decide.
    """
    blurred = scipy.ndimage.gaussian_filter(density, _WEIGHT_BLUR_ANGSTROM / voxel_size_angstrom, mode="constant")
    peak = float(np.percentile(blurred[blurred >= _FLOOR * blurred.max()], 98))
    voxels = max(1, int((blurred >= 0.5 * peak).sum()))
    return voxels * voxel_size_angstrom**3 * PROTEIN_DENSITY / 1000


def species_mask(species: Species, voxel_size_angstrom: float) -> np.ndarray:
    """The shape of one particle of a species, for label maps.

    A mask file is thresholded at half its maximum. Its header often says 1 Å or nothing; it is then taken to be on the
    tomogram's grid already. Without a file, the density is blurred by `MASK_BLUR_ANGSTROM` and thresholded at
    `species.mask_level` of the maximum. Cavities that are closed all around are filled.

    Returns:
        bool (n, n, n), odd n.

    Raises:
        InputError: neither mask, phantom nor density; an unreadable file; an empty mask.
    """
    if species.mask is not None:
        with open_volume(species.mask) as reader:
            size = reader.voxel_size_angstrom or voxel_size_angstrom
            box = _resample(_odd_cube(read_map(reader).astype(np.float32)), size / voxel_size_angstrom)
        if not box.max() > 0:
            raise InputError("the mask is empty", where=species.mask)
        mask = box >= 0.5 * box.max()
    elif species.phantom is None and species.density is None:
        raise InputError(
            f"species {species.name!r} has no shape", fix="give it a mask, a density map or a phantom, or use spheres"
        )
    else:
        sigma = MASK_BLUR_ANGSTROM / voxel_size_angstrom
        density = np.pad(species_density(species, voxel_size_angstrom), math.ceil(3 * sigma))
        blurred = scipy.ndimage.gaussian_filter(density, sigma, mode="constant")
        mask = blurred >= species.mask_level * blurred.max()
    mask = scipy.ndimage.binary_fill_holes(mask)
    return _trim(mask, mask)


def _odd_cube(data: np.ndarray) -> np.ndarray:
    """Pad to a cube of odd size whose middle is voxel `size // 2` of every axis, with the nearest values."""
    half = max(max(size // 2, size - 1 - size // 2) for size in data.shape)
    return np.pad(data, [(half - size // 2, half + 1 + size // 2 - size) for size in data.shape], mode="edge")


def _resample(box: np.ndarray, ratio: float) -> np.ndarray:
    """Resample an odd cube about its centre; `ratio` is old over new voxel size."""
    if abs(ratio - 1) < 1e-3:
        return box
    if ratio < 1:  # coarser: average over the new voxel first
        box = scipy.ndimage.gaussian_filter(box, 0.4 * math.sqrt(1 / ratio**2 - 1), mode="nearest")
    old_half = (box.shape[0] - 1) // 2
    half = max(1, math.floor(old_half * ratio))
    offset = old_half - half / ratio
    order = 1 if ratio < 1 else 3
    size = 2 * half + 1
    scale = np.full(3, 1 / ratio)
    resampled = scipy.ndimage.affine_transform(
        box, scale, offset=offset, output_shape=(size,) * 3, order=order, mode="nearest"
    )
    return np.asarray(resampled)


def _trim(box: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The smallest cube about the centre that holds what is `inside`, and one voxel more."""
    centre = (box.shape[0] - 1) // 2
    half = min(centre, int(np.abs(np.argwhere(inside) - centre).max()) + 1)
    cut = slice(centre - half, centre + half + 1)
    return np.ascontiguousarray(box[cut, cut, cut])
