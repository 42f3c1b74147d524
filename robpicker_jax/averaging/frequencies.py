"""Fourier transforms of boxes, read at rotated frequencies.

A rotation of a volume is the same rotation of its Fourier transform, so nothing is ever rotated in real space: a box is
padded to twice its edge and transformed once, and its transform is read at the rotated frequencies by B-spline weights.
A B-spline over Fourier voxels multiplies the volume by a known window in real space, which the volume is divided by before
the transform; what remains are the window's images, which the padding keeps away (below 1 in 1,000 for a particle that
fills half of the box, with the cubic spline).

Frequencies are whole numbers (Fourier voxels of the box, x y z): k stands for k / (edge · voxel size) in 1/Å. The volume's
origin is its voxel `edge // 2`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

PADDING = 2
"""Edge of the transformed box over that of the given one."""

LINEAR, CUBIC = 1, 3
"""Orders of the B-spline by which transforms are read."""


@functools.lru_cache(maxsize=64)
def half_space(edge: int, low: float, high: float) -> np.ndarray:
    """The frequencies of a shell, one of each pair k, −k: a real volume's transform is known from these.

    Args:
        edge: edge of the box, voxels.
        low, high: low <= |k| < high, Fourier voxels; `high` at most edge / 2.

    Returns:
        int32 (n, 3), x y z.
    """
    reach = int(np.ceil(min(high, edge / 2)))
    axis = np.arange(-reach, reach + 1)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    squared = z**2 + y**2 + x**2
    kept = (squared >= low**2) & (squared < min(high, edge / 2) ** 2)
    kept &= (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z >= 0))))
    found = np.stack([x[kept], y[kept], z[kept]], axis=1).astype(np.int32)
    found.setflags(write=False)
    return found


def window(edge: int, order: int) -> np.ndarray:
    """What reading a transform by a B-spline of `order` multiplies the volume by: Π sinc(x / padded edge)^(order + 1).

    Returns:
        float32 (edge, edge, edge).
    """
    one = np.sinc((np.arange(edge) - edge // 2) / (PADDING * edge)) ** (order + 1)
    return np.asarray(one[:, None, None] * one[None, :, None] * one[None, None, :], np.float32)


def transform(volumes: jax.Array, order: int) -> jax.Array:
    """The padded Fourier transform of boxes, to be read by `read`.

    Args:
        volumes: (…, edge, edge, edge), z y x.
        order: LINEAR or CUBIC.

    Returns:
        complex64 (…, padded, padded, padded), k = 0 first.
    """
    edge = volumes.shape[-1]
    padded = PADDING * edge
    before = padded // 2 - edge // 2
    after = padded - edge - before
    widths = [(0, 0)] * (volumes.ndim - 3) + [(before, after)] * 3
    axes = (-3, -2, -1)
    box = jnp.pad(volumes / window(edge, order), widths)
    return jnp.fft.fftn(jnp.fft.ifftshift(box, axes), axes=axes)


def at_whole(volumes: jax.Array, frequencies: np.ndarray) -> jax.Array:
    """The Fourier transform of boxes at whole frequencies, without rotation.

    Args:
        volumes: (…, edge, edge, edge).
        frequencies: int (n, 3), x y z.

    Returns:
        complex64 (…, n).
    """
    axes = (-3, -2, -1)
    edge = volumes.shape[-1]
    spectrum = jnp.fft.fftn(jnp.fft.ifftshift(volumes, axes), axes=axes)
    flat = _flat(frequencies, edge)
    return spectrum.reshape(*volumes.shape[:-3], -1)[..., flat]


def read(padded: jax.Array, frequencies: jax.Array, order: int) -> jax.Array:
    """Read a padded transform at any frequencies.

    Args:
        padded: complex (p, p, p), from `transform` with the same order.
        frequencies: float (…, 3), x y z in Fourier voxels of the box before padding.
        order: LINEAR or CUBIC.

    Returns:
        complex64 (…).
    """
    edge = padded.shape[-1]
    at = PADDING * frequencies
    base = jnp.floor(at)
    share = at - base
    whole = base.astype(jnp.int32)
    taps = _linear(share) if order == LINEAR else _cubic(share)
    first = 0 if order == LINEAR else -1
    table = padded.reshape(-1)
    reach = len(taps)
    weights = jnp.stack(taps)  # (taps, …, 3)
    knots = jnp.stack([(whole + (first + tap)) % edge for tap in range(reach)])
    rows = [(z, y) for z in range(reach) for y in range(reach)]

    def row(total: jax.Array, which: jax.Array) -> tuple[jax.Array, None]:
        z, y = which
        start = (knots[z, ..., 2] * edge + knots[y, ..., 1]) * edge
        line = sum(weights[x, ..., 0] * table[start + knots[x, ..., 0]] for x in range(reach))
        return total + (weights[z, ..., 2] * weights[y, ..., 1]) * line, None

    zero = jnp.zeros(frequencies.shape[:-1], padded.dtype)
    # Unrolled, 64 reads take the compiler longer than all the averaging of a small set.
    return jax.lax.scan(row, zero, jnp.asarray(rows))[0]


def volume(values: np.ndarray, frequencies: np.ndarray, edge: int) -> np.ndarray:
    """The real volume whose transform has `values` at half of the frequencies, and 0 at those not named.

    Args:
        values: complex (n,).
        frequencies: int (n, 3), from `half_space`.
        edge: edge of the box.

    Returns:
        float32 (edge, edge, edge).
    """
    spectrum = np.zeros(edge**3, np.complex128)
    spectrum[_flat(frequencies, edge)] = values
    spectrum[_flat(-frequencies, edge)] = np.conj(values)
    box = np.fft.ifftn(spectrum.reshape((edge,) * 3)).real
    return np.fft.fftshift(box).astype(np.float32)


def values_of(box: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The transform of a box (edge, edge, edge) at whole frequencies, complex128 (n,); the inverse of `volume`."""
    spectrum = np.fft.fftn(np.fft.ifftshift(box.astype(np.float64)))
    return np.asarray(spectrum.reshape(-1)[_flat(frequencies, box.shape[0])])


def _flat(frequencies: np.ndarray, edge: int) -> np.ndarray:
    x, y, z = np.mod(np.asarray(frequencies, np.int64).T, edge)
    return np.asarray((z * edge + y) * edge + x)


def _linear(share: jax.Array) -> tuple[jax.Array, ...]:
    return 1 - share, share


def _cubic(share: jax.Array) -> tuple[jax.Array, ...]:
    """Weights of the cubic B-spline at the four nearest knots."""
    rest = 1 - share
    squared, cubed = share * share, share * share * share
    return (
        rest**3 / 6,
        (4 - 6 * squared + 3 * cubed) / 6,
        (1 + 3 * share + 3 * squared - 3 * cubed) / 6,
        cubed / 6,
    )
