"""Augmentations of densities alone; labels stay as they are. See `augmentation` for the contract.

Strengths are DeePiCt's (de Teresa-Trueba et al. 2023) for densities of variance 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from robpicker_jax.patches.arrays import Array, namespace, normals, uniforms

_STRENGTHS = 64  # stream of the hash that strengths are drawn from, apart from those of the voxels


class _OfDensity(ABC):
    """An augmentation that moves nothing: `drawn` is uint32 (2,), the seed of its random numbers."""

    def margin(self, size: int) -> int:
        return 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2**32, 2, dtype=np.uint32)

    def apply(self, patch: Array, drawn: Array, *, size: int, nearest: bool) -> Array:
        return patch if nearest else self.changed(patch, drawn)

    @abstractmethod
    def changed(self, patch: Array, drawn: Array) -> Array:
        """The patch's densities, changed by what was drawn."""


class GaussianNoise(_OfDensity):
    """Normal noise of standard deviation σ·ε, σ uniform in (0, 1) and ε in (0, 0.3)."""

    def changed(self, patch: Array, drawn: Array) -> Array:
        sigma, epsilon = uniforms(drawn, (2,), _STRENGTHS)
        noisy: Array = patch + np.float32(0.3) * sigma * epsilon * normals(drawn, patch.shape, 0)
        return noisy


class SaltAndPepper(_OfDensity):
    """Each voxel lighter with probability p and darker with the same, by an amount; p up to 0.01, the amount up to 0.1."""

    def changed(self, patch: Array, drawn: Array) -> Array:
        share, amount = uniforms(drawn, (2,), _STRENGTHS + 1)
        p = np.float32(0.01) * share
        salt, pepper = (uniforms(drawn, patch.shape, stream) < p for stream in (2, 3))  # noise has 0 and 1
        difference = salt.astype(np.float32) - pepper.astype(np.float32)
        changed: Array = patch + np.float32(0.1) * amount * difference
        return changed


class Standardisation(_OfDensity):
    """Each patch to mean 0 and variance 1 (DeepFinder's training); `drawn` is not used. A constant patch becomes 0."""

    def changed(self, patch: Array, drawn: Array) -> Array:
        xp = namespace(patch)
        apart = patch - xp.mean(patch)
        spread = xp.sqrt(xp.mean(apart * apart))
        standard: Array = apart / xp.maximum(spread, np.float32(1e-6))
        return standard
