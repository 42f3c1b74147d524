"""What tests of patches share: small volumes with particles, a source of batches."""

from __future__ import annotations

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import PatchConfig
from robpicker_jax.labels import SphereLabels
from robpicker_jax.patches import BatchSource, PatchTomogram

RADII = SphereLabels([2.0, 3.0, 4.0])
SMALL = PatchConfig(size=16, shift_vox=3, background_share=0.25)


def tomogram(
    name: str, shape: tuple[int, int, int], counts: tuple[int, ...], *, seed: int, stored: bool = True
) -> PatchTomogram:
    """A noise volume with `counts[k]` particles of class k + 1; labels stored, or drawn when asked for."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(1, len(counts) + 1), counts)
    particles = Particles(rng.uniform(0, 1, (len(labels), 3)) * (np.array(shape[::-1]) - 1), labels)
    density = rng.standard_normal(shape).astype(np.float32)
    maps = RADII.labels(shape, particles) if stored else RADII.bind(shape, particles)
    return PatchTomogram(name, density, particles, maps)


def source(config: PatchConfig = SMALL, *, stored: bool = True, seed: int = 7, **kwargs: object) -> BatchSource:
    train = [
        tomogram("a", (24, 40, 36), (30, 10, 2), seed=1, stored=stored),
        tomogram("b", (20, 32, 48), (5, 0, 1), seed=2, stored=stored),
    ]
    meta = [tomogram("m", (24, 30, 30), (40, 8, 2), seed=3, stored=stored)]
    settings_ = {"batch_size": 8, "meta_batch_size": 4, **kwargs}
    return BatchSource(train, meta, config, seed=seed, **settings_)  # type: ignore[arg-type]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def within(count: float, n: int, p: float) -> bool:
    """Whether a binomial count lies within four standard deviations."""
    return abs(count - n * p) < 4 * np.sqrt(n * p * (1 - p))
