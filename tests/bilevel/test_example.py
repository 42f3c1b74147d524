"""The examples of docs/hypergradients.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from robpicker_jax.bilevel import METHODS, hypergradient
from tests.bilevel.bilevel_problems import quadratic

pytestmark = pytest.mark.fast

DOCS = Path(__file__).parents[2] / "docs" / "hypergradients.md"


def code_after(heading: str) -> list[str]:
    """The Python blocks of one section of the page."""
    section = re.split(r"^## ", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_toy_example_finds_the_wrong_labels() -> None:
    (source,) = code_after("A toy example")
    names: dict[str, object] = {}
    exec(compile(source, str(DOCS), "exec"), names)
    weights = np.asarray(names["weights"])
    assert np.median(weights[:20]) == pytest.approx(0.01, abs=0.01)
    assert np.median(weights[20:]) == pytest.approx(0.96, abs=0.02)
    np.testing.assert_allclose(names["params"], [1.0, -2.0, 0.5], atol=0.1)
    assert names["out"].outer_loss < 1e-2


def test_the_page_lists_every_method() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name in METHODS:
        assert f"| `{name}`" in text
        assert f"`{name}.py` |" in text


def test_the_hook_for_devices_is_what_the_page_says() -> None:
    """One device is a mean over one: the printed line, inside `shard_map` over a mesh of one device."""
    (source,) = code_after("On several devices")
    problem = quadratic(0.1).case.problem
    names = {"hypergradient": hypergradient, "problem": problem, "jax": jax, "optax": optax}
    exec(compile(source, str(DOCS), "exec"), names)
    case = quadratic(0.1).case
    mesh = jax.make_mesh((1,), ("data",))
    spec = jax.sharding.PartitionSpec()
    mapped = jax.shard_map(names["estimate"], mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    plain = hypergradient("tangent", problem)(*case.arguments())
    value = jax.jit(mapped)(*case.arguments()).hypergradient
    np.testing.assert_allclose(value, plain.hypergradient, rtol=1e-5)
