"""The missing wedge as a function of frequency, against the shared room's boxes and plain geometry."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from robpicker_jax.averaging.weights import Transfer, weight
from robpicker_jax.rotations import TiltScheme, binary_wedge, tilt_weights
from robpicker_jax.system.errors import InputError

EDGE = 32


def weights(transfer: Transfer, k: np.ndarray) -> np.ndarray:
    return np.asarray(weight(transfer.arrays(EDGE, 10.0), jnp.asarray(k, jnp.float32)))


@pytest.mark.fast
@pytest.mark.parametrize(("low", "high"), [(-60.0, 60.0), (-40.0, 65.0), (-90.0, 90.0)])
def test_agrees_with_the_stored_wedge_away_from_its_faces(low: float, high: float) -> None:
    axis = np.arange(EDGE) - EDGE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    stored = binary_wedge(EDGE, (low, high))
    found = weights(Transfer(low, high), np.stack([x, y, z], -1).reshape(-1, 3)).reshape(stored.shape)
    angle = np.rad2deg(np.arctan2(np.where(x < 0, -z, z), np.abs(x)))
    across = np.hypot(x, z)
    face = np.minimum(np.abs(angle - high), np.abs(angle - low))
    far = (across * np.sin(np.deg2rad(np.minimum(face, 90))) > 1.01) & (x != 0)
    assert far.mean() > 0.5
    assert_allclose(found[far], stored[far], atol=1e-5)
    assert_allclose(found[(x == 0) & (z == 0)], 1)


def test_opposite_frequencies_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    k = rng.uniform(-10, 10, (500, 3))
    transfer = Transfer(-50.0, 62.0)
    assert_allclose(weights(transfer, k), weights(transfer, -k), atol=1e-6)


def test_ctf_multiplies_by_the_length_alone() -> None:
    transfer = Transfer(-90.0, 90.0, ctf=lambda f: np.sin(40 * f))
    k = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 5.0], [0.0, 10.0, 0.0]])
    expected = np.sin(40 * np.array([5, 5, 10]) / (EDGE * 10.0))
    assert_allclose(weights(transfer, k), expected, atol=1e-4)


@pytest.mark.fast
@pytest.mark.parametrize("doses", [None, tuple(3.0 * np.arange(7))])
@pytest.mark.parametrize("ctf", [None, lambda f: np.cos(60 * f)])
def test_tilts_one_by_one_weigh_as_the_stored_box(doses: tuple[float, ...] | None, ctf: object) -> None:
    scheme = TiltScheme(tuple(np.linspace(-60, 50, 7)), doses, None if ctf is None else (ctf,))  # type: ignore[arg-type]
    axis = np.arange(EDGE) - EDGE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    stored = tilt_weights(EDGE, 10.0, scheme)
    transfer = Transfer(-60.0, 50.0, ctf=ctf, tilts=replace(scheme, transfers=None))  # type: ignore[arg-type]
    found = weights(transfer, np.stack([x, y, z], -1).reshape(-1, 3)).reshape(stored.shape)
    assert_allclose(found, stored, atol=1e-4)
    assert (stored > 0).mean() > 0.05


@pytest.mark.parametrize(("low", "high"), [(60.0, -60.0), (-95.0, 60.0), (10.0, 10.0)])
def test_a_tilt_range_that_is_none_is_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="tilt range"):
        Transfer(low, high)
