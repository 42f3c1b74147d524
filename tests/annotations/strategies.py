"""Hypothesis strategies for particle lists."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles
from robpicker_jax.annotations.bounds import are_fractions
from robpicker_jax.annotations.geometry import random_rotations

WRITABLE = [name for name, entry in FORMATS.items() if entry.write is not None]
"""Formats that are read and written."""

WORD = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1, max_size=12)


@st.composite
def particles(draw: st.DrawFn, *, full: bool = False, smallest: int = 1, largest: int = 8) -> Particles:
    """Particle lists with every column (`full`) or a random choice of them, positions within ±10,000 voxels.

    A list whose every coordinate lies between 0 and 1 is left out: it would be read as fractions of the box.
    """
    n = draw(st.integers(smallest, largest))
    coordinate = st.floats(-1e4, 1e4, allow_nan=False, width=32)
    positions = np.array(draw(st.lists(st.tuples(*[coordinate] * 3), min_size=n, max_size=n)), float).reshape(n, 3)
    assume(not are_fractions(positions))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def maybe(values: np.ndarray) -> np.ndarray | None:
        return values if full or draw(st.booleans()) else None

    words = st.lists(WORD, min_size=n, max_size=n)
    return Particles(
        positions,
        rng.integers(1, 13, n),
        rotations=maybe(random_rotations(n, rng)),
        scores=maybe(rng.random(n)),
        cluster_sizes=maybe(rng.integers(1, 5000, n)),
        tomograms=maybe(np.array(draw(words), dtype=np.str_)),
        extra={"obj_id": np.arange(n)} if full or draw(st.booleans()) else {},
    )
