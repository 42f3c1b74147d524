"""What a sweep tries: texts, proposals and halving against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.system.errors import InputError
from robpicker_jax.tuning import PROPOSALS, Choice, Done, Range, as_overrides, parse_space, rungs, survivors

pytestmark = pytest.mark.fast


def test_texts_of_the_command_line() -> None:
    space = parse_space(
        [
            "train.loss=dice|tversky",
            "model.widths=[8,16]|[16, 32]",
            "train.batch_size=4..16",
            "train.inner.learning_rate=1e-4..1e-2:log",
            "patches.background_share=0..0.5",
            "train.average_decay=0.9",
            "train.correction.learning_rate=1e-3|3e-3",
        ]
    )
    assert space == {
        "train.loss": Choice(("dice", "tversky")),
        "model.widths": Choice(([8, 16], [16, 32])),
        "train.batch_size": Range(4, 16, whole=True),
        "train.inner.learning_rate": Range(1e-4, 1e-2, log=True),
        "patches.background_share": Range(0, 0.5),
        "train.average_decay": Choice((0.9,)),
        "train.correction.learning_rate": Choice((1e-3, 3e-3)),
    }
    assert as_overrides({"model.widths": [8, 16], "train.loss": "dice"}) == [
        "model.widths=[8, 16]",
        'train.loss="dice"',
    ]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ([], "no field to search"),
        (["train.steps"], "no field with values"),
        (["train.steps="], "no field with values"),
        (["a=1|2", "a=3"], "given twice"),
        (["a=3..1"], "must rise"),
        (["a=0..1:log"], "above 0"),
        (["a=x..y"], "no range of numbers"),
        (["a=1..inf"], "must rise"),
        (["a=[1|2]"], "not valid YAML"),
        (["simulation.snr=0.1|0.2"], "all trials share"),
        (["data.invert_contrast=true|false"], "all trials share"),
        (["train.steps=10|20"], "trials are compared"),
    ],
)
def test_texts_that_are_refused(given_: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_space(given_)


def test_a_grid_is_the_product_and_then_ends() -> None:
    space = {"a": Choice((1, 2)), "b": Choice(("x", "y", "z"))}
    found = [PROPOSALS["grid"](space, index, (), 0) for index in range(7)]
    assert found == [*({"a": a, "b": b} for a, b in itertools.product((1, 2), "xyz")), None]
    with pytest.raises(InputError, match="a grid needs values"):
        PROPOSALS["grid"]({"a": Range(0, 1)}, 0, (), 0)


def test_random_values_are_spread_evenly_and_depend_on_seed_and_number_alone() -> None:
    space = {"c": Choice((1, 2, 3)), "n": Range(1, 4, whole=True), "x": Range(2, 4), "l": Range(1e-4, 1e-2, log=True)}
    drawn = [PROPOSALS["random"](space, index, (), 7) for index in range(3000)]
    assert drawn[5] == PROPOSALS["random"](space, 5, (Done({}, 1.0),), 7)
    assert drawn[5] != PROPOSALS["random"](space, 5, (), 8)
    for key, values in (("c", (1, 2, 3)), ("n", (1, 2, 3, 4))):
        counts = [sum(each[key] == value for each in drawn) for value in values]
        assert sum(counts) == 3000
        assert np.ptp(counts) < 0.15 * 3000 / len(values) * 2
    assert all(isinstance(each["n"], int) for each in drawn)
    x = np.array([each["x"] for each in drawn])
    logs = np.log10([each["l"] for each in drawn])
    for values, low, high in ((x, 2, 4), (logs, -4, -2)):
        assert low <= values.min() < values.max() <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.03)


@given(st.integers(1, 5000), st.integers(1, 100), st.integers(2, 5))
def test_rungs_rise_by_a_factor_to_all_steps(steps: int, least: int, eta: int) -> None:
    if least > steps:
        with pytest.raises(InputError, match="between 1 and"):
            rungs(steps, least, eta)
        return
    found = rungs(steps, least, eta)
    assert found[-1] == steps
    assert found[0] == min(least, steps)
    assert all(other == eta * one for one, other in itertools.pairwise(found[:-1]))
    assert all(one < other <= eta * one for one, other in itertools.pairwise(found))


def test_survivors_are_the_best_third_and_never_those_that_failed() -> None:
    assert survivors({0: 0.1, 1: 0.9, 2: 0.5, 3: 0.9, 4: None, 5: 0.3}, 3) == [1, 3]
    assert survivors({0: 0.4, 1: 0.4}, 3) == [0]
    assert survivors({2: None, 7: None}, 2) == []
    with pytest.raises(InputError, match="2 or more"):
        rungs(10, 1, 1)


def test_optuna_learns_from_the_trials_that_are_done() -> None:
    """A parabola with its maximum at 0.7 is found more closely than by as many random draws."""
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optuna)")
    space = {"x": Range(0, 1), "kind": Choice(([1], [2])), "n": Range(1, 8, whole=True)}
    done: list[Done] = []
    for index in range(40):
        values = PROPOSALS["optuna"](space, index, done, 3)
        assert values is not None
        again = PROPOSALS["optuna"](space, index, done, 3)
        assert values == again
        score = -((values["x"] - 0.7) ** 2) - (values["kind"] == [2])
        done.append(Done(values, score if index % 10 else None))
    late = [trial.values for trial in done[25:]]
    assert np.median([abs(values["x"] - 0.7) for values in late]) < 0.15
    assert np.mean([values["kind"] == [1] for values in late]) > 0.7
