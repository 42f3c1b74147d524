"""The tutorial on one's own bi-level problem, run as it is printed, on four virtual devices."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "bilevel_problem.md"

CHECKS = """
import json
import numpy as np

alone, _ = step(start, stacked(train), validation)


def difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


errors = {}
for method in ("unrolled", "tangent", "forward_over_reverse"):
    out = hypergradient(method, problem)(start.params + 0.1, start.meta, (), start.opt_state, stacked(train), validation)
    errors[method] = float(jnp.linalg.norm(out.hypergradient["penalty"] - expected) / jnp.linalg.norm(expected))
print(json.dumps({
    "devices": jax.device_count(),
    "largest of the features that matter": float(penalties[:3].max()),
    "mean of the others": float(penalties[3:].mean()),
    "error": [float(jnp.linalg.norm(p - true)) for p in (plain, state.params)],
    "methods": errors,
    "mesh": difference(alone, split_state),
    "shard_map": difference(alone, mapped_state),
    "three inner steps": int(state_of_three.step),
}))
"""


@pytest.mark.slow
def test_the_tutorial_does_what_it_says() -> None:
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, CHECKS])], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == 4
    assert result["largest of the features that matter"] < result["mean of the others"]
    without, with_penalties = result["error"]
    assert with_penalties < 0.8 * without
    assert all(error < 1e-5 for error in result["methods"].values())
    assert result["mesh"] < 1e-5
    assert result["shard_map"] < 1e-5
    assert result["three inner steps"] == 1
