"""Sums over voxels and their spreading: values, both derivative modes to second order, vmap, several devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from robpicker_jax.models.voxel_sums import voxel_spread, voxel_sum

pytestmark = pytest.mark.fast

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@settings(deadline=None, max_examples=25)  # each shape is compiled
@given(shapes)
def test_values_are_numpys(shape: tuple[int, ...]) -> None:
    x = noise(shape)
    with jax.enable_x64(True):
        np.testing.assert_allclose(voxel_sum(jnp.asarray(x)), x.reshape(-1, shape[-1]).sum(0), rtol=1e-12, atol=1e-12)
        values = x.reshape(-1, shape[-1])[0]
        np.testing.assert_array_equal(voxel_spread(jnp.asarray(values), shape), np.broadcast_to(values, shape))


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_to_second_order(compiled: bool) -> None:
    def function(x: jax.Array, values: jax.Array) -> jax.Array:
        mixed = jnp.sin(x) * voxel_spread(values**2, x.shape)
        return voxel_sum(mixed * voxel_spread(voxel_sum(x), x.shape))

    with jax.enable_x64(True):
        arguments = jnp.asarray(noise((2, 3, 2))), jnp.asarray(noise((2,), 1))
        check_grads(jax.jit(function) if compiled else function, arguments, order=2, modes=("fwd", "rev"))


def test_each_is_the_other_transposed() -> None:
    with jax.enable_x64(True):
        x, values = jnp.asarray(noise((3, 4, 5, 2))), jnp.asarray(noise((2,), 1))
        (spread,) = jax.linear_transpose(voxel_sum, x)(values)
        np.testing.assert_array_equal(spread, voxel_spread(values, x.shape))
        (total,) = jax.linear_transpose(lambda v: voxel_spread(v, x.shape), values)(x)
        np.testing.assert_array_equal(total, voxel_sum(x))


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_vmap_is_a_loop(axis: int) -> None:
    x = jnp.asarray(noise((3, 4, 5, 2)), jnp.float32)
    expected = jnp.stack([voxel_sum(part) for part in jnp.moveaxis(x, axis, 0)])
    np.testing.assert_allclose(jax.vmap(voxel_sum, axis)(x), expected, rtol=1e-5, atol=1e-5)
    values = x[:, :, 0, 0]
    spread = jax.vmap(lambda v: voxel_spread(v, (2, 3, v.size)), min(axis, 1))(values)
    expected = jnp.stack([voxel_spread(v, (2, 3, v.size)) for v in jnp.moveaxis(values, min(axis, 1), 0)])
    np.testing.assert_array_equal(spread, expected)


def test_devices_sum_their_share() -> None:
    devices = jax.devices()[:2]
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    x, values = jnp.asarray(noise((4, 3, 2)), jnp.float32), jnp.asarray([1.0, 2.0])

    def share(x: jax.Array, values: jax.Array) -> jax.Array:
        return jax.lax.psum(voxel_sum(x * voxel_spread(values, x.shape)), "data").sum()

    split = jax.shard_map(
        share, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec()
    )
    # The gradient with respect to the replicated values is that of the whole batch.
    found = jax.jit(jax.grad(split, argnums=(0, 1)))(x, values)
    np.testing.assert_allclose(found[0], jnp.broadcast_to(values, x.shape), rtol=1e-6)
    np.testing.assert_allclose(found[1], x.sum((0, 1)), rtol=1e-5, atol=1e-5)
