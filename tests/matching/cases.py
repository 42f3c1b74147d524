"""What the tests of matching share: an asymmetric template, a volume that holds it, and a brute-force search."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from robpicker_jax.matching import Template, ball_mask
from robpicker_jax.matching.correlation import OVERSAMPLING
from robpicker_jax.rotations import oversample, rotate_volume

WAVES = ((1.0, (0, 0, 0)), (0.8, (3, 0, 1)), (-0.7, (0, 3, -1)), (0.6, (-1, 1, 3)))
DEVIATION = 1.5


def density(edge: int = 13, rotation: np.ndarray | None = None) -> np.ndarray:
    """A sum of Gaussians about voxel `edge // 2`, turned in closed form."""
    grid = np.indices((edge,) * 3).transpose(1, 2, 3, 0) - edge // 2
    turned = np.eye(3) if rotation is None else rotation
    result = np.zeros((edge,) * 3)
    for weight, centre in WAVES:
        at = (turned @ np.array(centre, float)[::-1])[::-1]
        result += weight * np.exp(-((grid - at) ** 2).sum(axis=-1) / (2 * DEVIATION**2))
    return result.astype(np.float32)


def template(edge: int = 13, *, soft: float = 0.0, turns: bool = False, name: str = "blob") -> Template:
    """The density with a mask of radius 5 voxels, or one that is no ball."""
    mask = ball_mask(edge, 5.0, soft)
    if turns:
        mask[:, :, : edge // 2 - 2] = 0
    return Template(name, density(edge), mask, 10.0, 10.0, turns=turns)


def standardised(volume: np.ndarray) -> np.ndarray:
    """Mean 0, standard deviation 1, float32."""
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


def planted(
    shape: tuple[int, int, int], voxels: list[tuple[int, int, int]], rotations: np.ndarray, noise: float, seed: int = 0
) -> np.ndarray:
    """The density at some voxels and rotations in white noise, standardised."""
    volume = np.random.default_rng(seed).normal(size=shape) * noise
    for voxel, rotation in zip(voxels, rotations, strict=True):
        region = tuple(slice(at - 6, at + 7) for at in voxel)
        volume[region] += density(13, rotation)
    return standardised(volume)


def brute_force(volume: np.ndarray, made: Template, rotations: np.ndarray, wedge: np.ndarray | None) -> np.ndarray:
    """Pearson's correlation under the mask at every voxel and rotation, by loops in float64: (m, z, y, x)."""
    edge = made.edge
    before, after = edge // 2, edge - 1 - edge // 2
    padded = np.pad(volume.astype(float), (before, after))
    fine, fine_mask = (oversample(box, OVERSAMPLING) for box in (made.density, made.mask))
    scores = np.zeros((len(rotations), *volume.shape))
    for number, rotation in enumerate(rotations):
        matrix = jnp.asarray(rotation, jnp.float32)
        kernel = np.asarray(rotate_volume(fine, matrix, oversampling=OVERSAMPLING), float)
        mask = made.mask.astype(float)
        if made.turns:
            mask = np.clip(np.asarray(rotate_volume(fine_mask, matrix, oversampling=OVERSAMPLING), float), 0, 1)
        if wedge is not None:
            kernel = np.fft.ifftn(np.fft.fftn(kernel) * np.fft.ifftshift(wedge)).real
        weights = mask / mask.sum()
        kernel = kernel - (weights * kernel).sum()
        for voxel in np.ndindex(volume.shape):
            patch = padded[tuple(slice(at, at + edge) for at in voxel)]
            patch = patch - (weights * patch).sum()
            power = (weights * patch**2).sum() * (weights * kernel**2).sum()
            scores[(number, *voxel)] = (weights * patch * kernel).sum() / np.sqrt(power)
    return scores
