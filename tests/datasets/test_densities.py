"""What is known of a tomogram's densities: scale and contrast (field faults A9)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.datasets.densities import DensityStatistics, block_edge, density_statistics, disagreement, together


def tomogram(seed: int, sign: float = 1.0, noise: float = 1.0, particles: int = 40) -> np.ndarray:
    """Balls of radius 4 in noise, of mean 0 and standard deviation 1."""
    rng = np.random.default_rng(seed)
    density = noise * rng.normal(size=(40, 64, 64))
    zyx = np.indices(density.shape)
    for centre in rng.uniform(4, (36, 60, 60), size=(particles, 3)):
        density += sign * (((zyx - centre[:, None, None, None]) ** 2).sum(axis=0) <= 16)
    return ((density - density.mean()) / density.std()).astype(np.float32)


def test_a9_inverted_contrast_is_noticed_and_the_same_contrast_is_not() -> None:
    trained = together([density_statistics(tomogram(seed, -1.0), 4) for seed in range(2)])
    assert trained is not None
    assert trained.skewness < 0
    assert disagreement(density_statistics(tomogram(5, -1.0), 4), trained) is None
    said = disagreement(density_statistics(tomogram(5, 1.0), 4), trained)
    assert said is not None
    assert "inverted" in said


def test_noise_alone_says_nothing() -> None:
    trained = density_statistics(tomogram(0, -1.0), 4)
    for seed in range(5):
        noise = density_statistics(tomogram(seed, particles=0), 4)
        assert noise.skewness == 0
        assert disagreement(noise, trained) is None


def test_tomograms_that_disagree_say_nothing_together() -> None:
    both = together([density_statistics(tomogram(0, sign), 4) for sign in (1.0, -1.0)])
    assert both is not None
    assert both.skewness == 0
    assert together([]) is None


def test_a9_another_normalisation_is_noticed() -> None:
    trained = DensityStatistics(0.0, 1.0, 0.0, 4)
    said = disagreement(density_statistics(100 + 30 * tomogram(1), 4), trained)
    assert said is not None
    assert "normalise" in said


@given(st.integers(1, 9), st.tuples(*[st.integers(1, 9)] * 3), st.floats(-5, 5), st.floats(0.1, 10))
@settings(deadline=None)
def test_any_shape_is_measured_and_the_sign_turns_with_the_contrast(
    block: int, shape: tuple[int, int, int], mean: float, scale: float
) -> None:
    density = np.random.default_rng(0).normal(mean, scale, size=shape).astype(np.float32)
    found = density_statistics(density, block)
    inverted = density_statistics(-density, block)
    assert np.isfinite([found.mean, found.std, found.skewness]).all()
    np.testing.assert_allclose(inverted.skewness, -found.skewness, atol=1e-6)
    np.testing.assert_allclose(inverted.mean, -found.mean, atol=1e-5)


def test_blocks_are_as_large_as_the_smallest_radius() -> None:
    assert block_edge([9.0, 4.4]) == 4
    assert block_edge([1.0]) == 2
