"""3D convolution, pooling and upsampling against XLA's own operations, in float64, with all derivatives."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from robpicker_jax.models.conv import (
    conv3d,
    max_pool3d,
    overlapping_max_pool3d,
    strided_conv3d,
    transposed_conv3d,
    upsample_nearest3d,
)

edges = st.integers(1, 6)
kernel_edges = st.integers(1, 5)
channels = st.integers(1, 4)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def oracle(x: jax.Array, kernel: jax.Array) -> jax.Array:
    layout = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=layout)


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]


def assert_close(found: object, expected: object) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), edges, edges, edges),
    size=st.tuples(kernel_edges, kernel_edges, kernel_edges),
    widths=st.tuples(channels, channels),
    lowering=st.sampled_from(["folded", "native"]),
)
def test_value_and_gradients_equal_xla(shape, size, widths, lowering) -> None:  # type: ignore[no-untyped-def]
    x, kernel, g = arrays(0, (*shape, widths[0]), (*size, *widths), (*shape, widths[1]))
    found, pull = jax.vjp(lambda x, k: conv3d(x, k, lowering=lowering), x, kernel)
    expected, expected_pull = jax.vjp(oracle, x, kernel)
    assert_close(found, expected)
    assert_close(pull(g), expected_pull(g))


@pytest.mark.parametrize("lowering", ["folded", "native"])
@pytest.mark.parametrize(("size", "widths"), [((3, 3, 3), (2, 3)), ((2, 2, 2), (3, 2)), ((5, 4, 3), (3, 3))])
def test_second_derivatives_equal_xla(lowering: str, size: tuple[int, int, int], widths: tuple[int, int]) -> None:
    """jvp, jvp of grad, grad of jvp and grad of grad of a loss of two stacked convolutions."""
    cin, width = widths
    shapes = ((2, 4, 5, 6, cin), (*size, cin, width), (*size, width, cin))
    primals = tuple(arrays(1, *shapes))
    tangents = tuple(arrays(2, *shapes))
    cotangents = tuple(arrays(3, *shapes))

    def derivatives(convolve):  # type: ignore[no-untyped-def]
        def loss(x, first, second):  # type: ignore[no-untyped-def]
            return jnp.sum(jnp.sin(convolve(jnp.tanh(convolve(x, first)), second)))

        gradient = jax.grad(loss, (0, 1, 2))

        def directional(*p):  # type: ignore[no-untyped-def]
            return jax.jvp(loss, p, tangents)[1]

        def paired(*p):  # type: ignore[no-untyped-def]
            return sum(jnp.vdot(a, b) for a, b in zip(gradient(*p), cotangents, strict=True))

        return (
            jax.jvp(loss, primals, tangents),
            jax.jvp(gradient, primals, tangents),
            jax.grad(directional, (0, 1, 2))(*primals),
            jax.grad(paired, (0, 1, 2))(*primals),
        )

    found = jax.jit(lambda: derivatives(lambda x, k: conv3d(x, k, lowering=lowering)))()
    assert_close(found, jax.jit(lambda: derivatives(oracle))())


def test_float32_agrees_to_rounding() -> None:
    x, kernel = (a.astype(jnp.float32) for a in arrays(4, (2, 8, 9, 10, 12), (3, 3, 3, 12, 20)))
    exact = np.asarray(oracle(x.astype(jnp.float64), kernel.astype(jnp.float64)))
    assert np.abs(conv3d(x, kernel) - exact).max() <= 1e-6 * np.abs(exact).max() * 5


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0), (1, 3)])
def test_vmap(in_axes: tuple[int | None, int | None]) -> None:
    x, kernel = arrays(5, (2, 4, 5, 4, 3), (3, 2, 3, 3, 2))
    pairs = zip((x, kernel), in_axes, strict=True)
    many = [a if axis is None else jnp.stack([a, 2 * a, -a], axis) for a, axis in pairs]

    def gradient(convolve):  # type: ignore[no-untyped-def]
        return jax.vmap(jax.grad(lambda x, k: jnp.sum(convolve(x, k) ** 2), (0, 1)), in_axes)(*many)

    assert_close(gradient(conv3d), gradient(oracle))


def test_rejects_what_does_not_fit() -> None:
    x, kernel = arrays(6, (1, 4, 4, 4, 2), (3, 3, 3, 5, 2))
    with pytest.raises(TypeError, match="conv3d takes"):
        conv3d(x, kernel)


def test_transposed_convolution_equals_xla() -> None:
    x, kernel, g = arrays(7, (2, 3, 4, 5, 3), (2, 2, 2, 3, 4), (2, 6, 8, 10, 4))
    layout = ("NDHWC", "DHWIO", "NDHWC")

    def expected(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_transpose(x, kernel[::-1, ::-1, ::-1], (2, 2, 2), "VALID", dimension_numbers=layout)

    found, pull = jax.vjp(transposed_conv3d, x, kernel)
    wanted, wanted_pull = jax.vjp(expected, x, kernel)
    # lax.conv_transpose does not mirror the kernel unless told to; written out for one output voxel:
    np.testing.assert_allclose(found[1, 3, 4, 7], x[1, 1, 2, 3] @ kernel[1, 0, 1], rtol=1e-12)
    assert_close(found, wanted)
    assert_close(pull(g), wanted_pull(g))


def test_max_pool_equals_reduce_window() -> None:
    x, g = arrays(8, (2, 4, 6, 8, 3), (2, 2, 3, 4, 3))
    window = (1, 2, 2, 2, 1)
    found, pull = jax.vjp(max_pool3d, x)
    wanted, wanted_pull = jax.vjp(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID"), x)
    assert_close(found, wanted)
    assert_close(pull(g), wanted_pull(g))


def test_of_tied_maxima_the_first_has_the_gradient_and_nan_stays() -> None:
    gradient = jax.grad(lambda x: max_pool3d(x).sum())(jnp.zeros((1, 2, 2, 2, 1)))
    np.testing.assert_array_equal(gradient.ravel(), np.eye(8)[0])
    for place in np.ndindex(2, 2, 2):
        x = jnp.zeros((1, 2, 2, 2, 1)).at[0, *place, 0].set(jnp.nan)
        assert jnp.isnan(max_pool3d(x)).all()
        assert jnp.isnan(overlapping_max_pool3d(x)).all()


def test_nearest_upsampling_repeats_voxels() -> None:
    (x,) = arrays(9, (1, 2, 3, 4, 2))
    expected = np.asarray(x).repeat(2, 1).repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(upsample_nearest3d(x), expected)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_strided_convolution_equals_xlas(size: int) -> None:
    x, kernel, g = arrays(3, (2, 4, 6, 8, 2), (size, size, size, 2, 3), (2, 2, 3, 4, 3))
    padding = [((size - 1) // 2,) * 2] * 3

    def reference(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NDHWC", "DHWIO", "NDHWC")
        return lax.conv_general_dilated(x, kernel, (2, 2, 2), padding, dimension_numbers=layout)

    found, pull = jax.vjp(strided_conv3d, x, kernel)
    expected, expected_pull = jax.vjp(reference, x, kernel)
    assert_close(found, expected)
    assert_close(pull(g), expected_pull(g))


def test_an_overlapping_max_pool_equals_xlas() -> None:
    (x,) = arrays(4, (2, 4, 6, 8, 3))
    padding = ((0, 0), *[(1, 1)] * 3, (0, 0))
    expected = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 3, 1), (1, 2, 2, 2, 1), padding)
    np.testing.assert_array_equal(overlapping_max_pool3d(x), expected)
    np.testing.assert_array_equal(overlapping_max_pool3d(x - 9), expected - 9)  # nothing beyond the edge counts as zero
    (g,) = arrays(5, expected.shape)
    places = jax.vjp(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 3, 1), (1, 2, 2, 2, 1), padding), x)[1]
    np.testing.assert_allclose(jax.vjp(overlapping_max_pool3d, x)[1](g)[0], places(g)[0], atol=1e-12)
