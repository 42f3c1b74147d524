"""What tests of the metrics share: lists of particles, drawn and by hand, and rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation import Evaluation, EvaluationOptions, evaluate
from robpicker_jax.evaluation.matching import Pairs

NAMES = ("ribosome", "proteasome")


def particles(positions: object, labels: object = None, scores: object = None) -> Particles:
    positions = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    labels = np.ones(len(positions), np.int32) if labels is None else np.asarray(labels, np.int32)
    return Particles(positions, labels, scores=None if scores is None else np.asarray(scores, np.float64))


def score(truth: Particles, picks: Particles, **options: Any) -> Evaluation:
    """Evaluate one tomogram, by default by tolerance; `instance_maps` and `regions` go to `evaluate`."""
    data = {name: options.pop(name) for name in ("instance_maps", "regions") if name in options}
    return evaluate({"t": truth}, {"t": picks}, tolerance(**options), **data)


def tolerance(**options: Any) -> EvaluationOptions:
    """Options for the two classes, by tolerance unless another rule is given."""
    return EvaluationOptions(**({"class_names": NAMES, "rule": "tolerance"} | options))


@st.composite
def particle_sets(draw: st.DrawFn, most: int = 12, box: float = 8.0) -> Particles:
    count = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Scores on a coarse grid, so that ties happen.
    return particles(rng.uniform(0, box, (count, 3)), rng.integers(1, 3, count), rng.integers(0, 8, count) / 7)


def pairs_of(distances: dict[tuple[int, int], float]) -> Pairs:
    keys = np.array(list(distances), dtype=np.int64).reshape(-1, 2)
    return Pairs(keys[:, 0], keys[:, 1], np.array(list(distances.values()), dtype=np.float64))


RULES = st.sampled_from(
    [
        {"rule": "tolerance", "tolerance_vox": 2.0},
        {"rule": "mask", "radii_vox": (3.0, 1.5)},
        {"rule": "czii", "radii_vox": (3.0, 5.0)},
        {"rule": "mask", "radii_vox": (3.0, 1.5), "one_to_one": False},
    ]
)
