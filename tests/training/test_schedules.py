"""Kind: the learning rate jumps when a run with a schedule is prolonged (field row A19)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.commands.run_state import schedule_changes
from robpicker_jax.config import OptimizerConfig, TrainConfig, dump_config, load_config
from robpicker_jax.training.optimizers import class_entropy_schedule, rate_jumps, schedule_of


def train(steps: int, **options: object) -> TrainConfig:
    """A supervised training whose inner optimiser has a cosine with a peak of 1."""
    inner = OptimizerConfig(learning_rate=1.0, **{"schedule": "cosine", **options})  # type: ignore[arg-type]
    return TrainConfig(variant="supervised", steps=steps, inner=inner)


def rates(config: TrainConfig) -> np.ndarray:
    """The learning rate at each step."""
    schedule = schedule_of(config, "inner")
    return np.array([float(schedule(step)) for step in range(config.steps + 1)])


def test_a19_doubling_the_steps_of_a_cosine_jumps_from_zero_to_half_the_peak_and_that_is_said() -> None:
    (line,) = rate_jumps(train(100), train(200), 100)
    assert "jumps from 0 to 0.5 at step 100" in line
    assert "schedule_steps 100" in line
    assert not rate_jumps(train(100), train(100), 50)
    assert not rate_jumps(train(100, schedule="constant"), train(200, schedule="constant"), 100)


def test_the_entropy_by_class_fades_and_its_jump_is_said() -> None:
    configured = [replace(train(steps, schedule="constant"), meta_class_entropy=0.3) for steps in (100, 200)]
    schedule = class_entropy_schedule(configured[0])
    assert schedule is not None
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 50, 100)], [0.3, 0.15, 0.0], atol=1e-7)
    assert class_entropy_schedule(train(100)) is None
    (line,) = rate_jumps(*configured, 100)
    assert "jumps from 0 to 0.15 at step 100" in line
    assert not rate_jumps(configured[0], configured[0], 50)


def test_a19_a_tail_or_a_restart_is_to_choose() -> None:
    tail = rates(train(200, schedule_steps=100, final_share=0.1))
    np.testing.assert_allclose(tail[:101], rates(train(100, final_share=0.1)), rtol=1e-6)
    np.testing.assert_allclose(tail[100:], 0.1, rtol=1e-6)
    assert not rate_jumps(train(100, final_share=0.1), train(200, schedule_steps=100, final_share=0.1), 100)
    again = rates(train(250, schedule="cosine_restarts", schedule_steps=100))
    assert again[99] < 0.01
    np.testing.assert_allclose(again[[100, 200]], 1.0)
    np.testing.assert_allclose(again[100:200], again[:100], atol=1e-6)


@given(
    steps=st.integers(2, 60),
    more=st.integers(0, 60),
    schedule=st.sampled_from(["cosine", "cosine_restarts", "constant"]),
    share=st.floats(0, 1),
    warmup=st.integers(0, 5),
    inner_steps=st.integers(1, 3),
)
def test_a19_with_schedule_steps_a_prolonged_run_has_the_rates_of_the_shorter_one(
    steps: int, more: int, schedule: str, share: float, warmup: int, inner_steps: int
) -> None:
    options = {"schedule": schedule, "final_share": share, "warmup_steps": warmup}
    short, long = (
        replace(train(n, schedule_steps=steps, **options), inner_steps=inner_steps) for n in (steps, steps + more)
    )
    np.testing.assert_allclose(rates(long)[:steps], rates(short)[:steps], atol=1e-6)
    assert all(0 <= rate <= 1 + 1e-6 for rate in rates(long))
    if schedule == "cosine" and steps * inner_steps > warmup + 1:
        assert all(after <= before + 1e-6 for before, after in pairwise(rates(long)[-(-warmup // inner_steps) :]))


def test_a19_the_fine_tuning_at_the_end_keeps_its_own_cosine() -> None:
    config = replace(train(20, schedule_steps=8), fine_tune_steps=10)
    found = rates(config)
    assert found[9] == pytest.approx(0, abs=1e-6)
    assert found[10] == pytest.approx(0.1)


def test_a19_a_resumed_run_tells_the_jump(tmp_path: Path) -> None:
    before, after = (load_config(None, [f"train.steps={steps}"]) for steps in (100, 200))
    (tmp_path / "config.yaml").write_text(dump_config(before))
    assert not schedule_changes(after, tmp_path)  # no checkpoint: nothing is resumed
    (tmp_path / "checkpoints" / "latest" / "100").mkdir(parents=True)
    assert any("train.inner: the learning rate jumps from 0" in line for line in schedule_changes(after, tmp_path))
    assert not schedule_changes(before, tmp_path)
