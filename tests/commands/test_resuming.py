"""Training that is stopped, crashes or diverges: what is kept, and that a resumed run is the uninterrupted one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax.config import Config, load_config
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object
from robpicker_jax.training import trainer
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.data import device_batches
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.feeding import Batches
from robpicker_jax.training.metrics_log import MetricsLog, read_metrics
from robpicker_jax.training.out_of_memory import StepOutOfMemory, on_devices, within_memory
from robpicker_jax.training.plan import Plan, prepare
from robpicker_jax.training.run_folder import trained_to
from robpicker_jax.training.trainer import fit
from robpicker_jax.training.validations import Interrupted, stop_if_asked
from tests.steps import loaded_data


@pytest.fixture(scope="session")
def tiny_experiment(tiny_config: Path, tiny_data: Path) -> tuple[Config, Experiment]:
    """The tiny run's compiled steps, without validation."""
    config = load_config(tiny_config, [f"data.dir={tiny_data}"])
    return config, build_experiment(config)


def fresh(experiment: Experiment) -> Experiment:
    """The experiment with a copy of its initial state, which a step would otherwise consume."""
    return Experiment(**{**vars(experiment), "state": jax.tree.map(lambda leaf: leaf.copy(), experiment.state)})


def train_tiny(setting: tuple[Config, Experiment], workdir: Path, fail_before: int | None = None) -> Any:
    """Fit without validation; raise before a given step when asked to, as a crash would."""
    config, experiment = setting
    batches = batches_of(config, experiment)

    def broken(start: int) -> Iterator[Any]:
        for step, pair in enumerate(batches(start), start=start + 1):
            if step == fail_before:
                raise RuntimeError("crash")
            yield pair

    return fit(fresh(experiment), broken, workdir).last


def test_a_resumed_run_is_the_uninterrupted_one(tiny_experiment: tuple[Config, Experiment], tmp_path: Path) -> None:
    whole = train_tiny(tiny_experiment, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="crash"):
        train_tiny(tiny_experiment, tmp_path / "parts", fail_before=4)
    resumed = train_tiny(tiny_experiment, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    keys = ("step", "inner_loss", "outer_loss", "weight_mean")
    rows = [
        [{key: row[key] for key in keys} for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


def test_a_run_with_a_warm_up_is_the_same_however_it_is_cut(
    tiny_config: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut within the warm-up and after it: so its step is compiled when the warm-up ends, and before the first batch."""
    settings = ["train.meta_warmup_steps=2", "train.meta_alpha=0", "train.checkpoint_every=1", "train.log_every=1"]
    config = load_config(tiny_config, [f"data.dir={tiny_data}", *settings])
    setting = config, build_experiment(config)
    clock: list[str] = []
    with monkeypatch.context() as watched:
        pace, reset = MetricsLog.pace, MetricsLog.reset_clock
        watched.setattr(MetricsLog, "pace", lambda log, step: (clock.append(f"step {step}"), pace(log, step))[1])
        watched.setattr(MetricsLog, "reset_clock", lambda log: (clock.append("reset"), reset(log))[1])
        whole = train_tiny(setting, tmp_path / "whole")
    # Each step has its own time: the last of the warm-up is reported before the clock forgets it for what is compiled next.
    assert clock == ["reset", "reset", "step 1", "step 2", "reset", "step 3", "step 4"]
    for cut, waits in ((2, True), (4, False)):
        folder = tmp_path / str(cut)
        with pytest.raises(RuntimeError, match="crash"):
            train_tiny(setting, folder, fail_before=cut)
        planned, plan = prepare(fresh(setting[1]), done=trained_to(folder) or 0)
        assert (plan.compiled_bytes is None) == waits
        jax.tree.map(np.testing.assert_array_equal, whole, train_tiny((config, planned), folder))


def batches_of(config: Config, experiment: Experiment) -> Batches:
    """Batches of the configuration's data set, cut on the host."""
    source = loaded_data(config).source()
    return device_batches(source, config.train, experiment.mesh)


def signalled(batches: Batches, last: int) -> Batches:
    """The same batches, with a SIGTERM just before that of step `last` (counted from 1)."""

    def make(start: int) -> Iterator[Any]:
        for step, pair in enumerate(batches(start), start=start + 1):
            if step == last:
                signal.raise_signal(signal.SIGTERM)
            yield pair

    return make


def test_a_signal_stops_the_run_with_its_state_saved(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    with pytest.raises(Interrupted, match="after step 3"):
        fit(fresh(experiment), signalled(batches, 3), tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest_step() == 3
    checkpoints.close()
    whole = train_tiny(tiny_experiment, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, whole, train_tiny(tiny_experiment, tmp_path))


def test_a_validation_that_a_signal_prevented_is_made_up_for(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    def validate(state: Any) -> dict[str, float]:
        return {"macro_f1": 1.0 / int(state.step)}  # the earlier the better

    with pytest.raises(Interrupted, match="after step 2"):
        fit(fresh(experiment), signalled(batches, 2), tmp_path, validate=validate)
    assert not [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    best: list[tuple[int, float]] = []
    result = fit(
        fresh(experiment),
        batches,
        tmp_path,
        validate=validate,
        on_best=lambda state, score: best.append((int(state.step), score)),
    )
    assert best == [(2, 0.5)]  # the state of step 4 is no better
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    assert [row["step"] for row in rows] == [2, 4]
    assert result.best_step == 2


def test_of_equal_scores_the_later_state_is_kept_and_a_finished_run_stays_as_it_is(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)
    validated = []

    def validate(state: Any) -> dict[str, float]:
        validated.append(int(state.step))
        return {"macro_f1": 1.0}

    assert fit(fresh(experiment), batches, tmp_path, validate=validate).best_step == 4
    assert fit(fresh(experiment), batches, tmp_path, validate=validate).best_step == 4
    assert validated == [2, 4]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment: tuple[Config, Experiment], tmp_path: Path) -> None:
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)

    def poisoned(start: int) -> Iterator[Any]:
        for step, (first, meta) in enumerate(batches(start), start=start + 1):
            yield (first._replace(image=first.image * np.nan) if step == 3 else first), meta

    with pytest.raises(InputError, match=r"nan at step 3.*checkpoint of step 2 is good and kept"):
        fit(fresh(experiment), poisoned, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = checkpoints.restore(experiment.state)
    checkpoints.close()
    assert int(state.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("at", [2, 4])
def test_b14_a_signal_during_a_validation_ends_it_and_it_is_made_up_for(
    at: int, tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    """In a middle validation and in the last one, between its tomograms and after them."""
    config, experiment = tiny_experiment
    batches = batches_of(config, experiment)
    picked: list[tuple[int, int]] = []

    def validate(state: Any, signal_at: int = 0) -> dict[str, float]:
        step = int(state.step)
        for tomogram in range(3):
            stop_if_asked()
            picked.append((step, tomogram))
            if step == signal_at and tomogram == 1:
                signal.raise_signal(signal.SIGTERM)
        return {"macro_f1": 1.0 / step}

    with pytest.raises(Interrupted, match=f"after step {at}; its state is saved"):
        fit(fresh(experiment), batches, tmp_path, validate=lambda state: validate(state, at))
    assert picked[-1] == (at, 1)
    result = fit(fresh(experiment), batches, tmp_path, validate=validate)
    assert picked.count((at, 2)) == 1
    assert result.best_step == 2
    rows = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "validation"]
    assert rows == [2, 4]


def test_b14_a_signal_after_the_last_tomogram_of_the_last_validation_is_not_swallowed(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment

    def validate(state: Any) -> dict[str, float]:
        if int(state.step) == 4:
            signal.raise_signal(signal.SIGINT)
        return {"macro_f1": 0.5}

    with pytest.raises(Interrupted, match="after step 4"):
        fit(fresh(experiment), batches_of(config, experiment), tmp_path, validate=validate)


def test_b19_where_nothing_was_saved_nothing_is_said_to_be_kept(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment

    def poisoned(start: int) -> Iterator[Any]:
        for first, meta in batches_of(config, experiment)(start):
            yield first._replace(image=first.image * np.nan), meta

    with pytest.raises(InputError, match=r"nan at step 1, in every patch of its batch; no checkpoint had been written"):
        fit(fresh(experiment), poisoned, tmp_path)


def poisoned_at(batches: Batches, step: int, row: int | None = None) -> Batches:
    """The same batches, with NaN in the densities of one step: in one patch or in all."""

    def make(start: int) -> Iterator[Any]:
        for number, (first, meta) in enumerate(batches(start), start=start + 1):
            image = first.image
            if number == step:
                image = image * np.nan if row is None else image.at[:, row].multiply(np.nan)
            yield first._replace(image=image), meta

    return make


@pytest.fixture(scope="session")
def policies(tiny_config: Path, tiny_data: Path) -> dict[str, tuple[Config, Experiment]]:
    """A small supervised experiment for each `train.on_nan`; without batch norm, a patch's NaN stays in its row."""
    overrides = [f"data.dir={tiny_data}", "train.variant=supervised", "model.batch_norm=false", "model.widths=[2, 2]"]
    configs = {name: load_config(tiny_config, [*overrides, f"train.on_nan={name}"]) for name in ("skip", "rollback")}
    return {name: (config, build_experiment(config)) for name, config in configs.items()}


Policies = dict[str, tuple[Config, Experiment]]


def test_a_patch_whose_loss_is_not_finite_is_named(
    policies: Policies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, experiment = policies["skip"]
    data = loaded_data(config)
    batches = device_batches(data.source(), config.train, experiment.mesh)
    z, y, x = data.source().plan("train", 2, 1).corner_zyx
    fit(fresh(experiment), poisoned_at(batches, 3, row=1), tmp_path, place=data.place)
    assert (
        f"nan at step 3, in the patch of train_000 from z {z}, y {y}, x {x} on; the step is" in capsys.readouterr().out
    )


def test_a_step_that_is_not_finite_is_skipped(
    policies: Policies, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, experiment = policies["skip"]
    batches = batches_of(config, experiment)
    result = fit(fresh(experiment), poisoned_at(batches, 3), tmp_path / "a")
    assert "nan at step 3, in every patch of its batch; the step is left out" in capsys.readouterr().out
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [(row["step"], row.get("left_out")) for row in rows] == [(1, None), (2, None), (3, 1), (4, None)]
    # Steps 1, 2 and 4 alone, counted as 1, 2 and 4: what skipping means.
    jax.tree.map(np.testing.assert_array_equal, result.last, taken(experiment, batches, leave_out=3))
    monkeypatch.setattr(trainer, "MOST_IN_A_ROW", 2)
    with pytest.raises(InputError, match="nan at step 3"):  # never without end
        fit(fresh(experiment), always_poisoned(batches), tmp_path / "b")


def taken(experiment: Experiment, batches: Batches, leave_out: int) -> Any:
    """The state after steps 1 to 4, all but one."""
    state = fresh(experiment).state
    for number, (first, meta) in zip(range(1, 5), batches(0), strict=True):
        state = state._replace(step=state.step + 1) if number == leave_out else experiment.step(state, first, meta)[0]
    return state


def always_poisoned(batches: Batches) -> Batches:
    """NaN in every batch."""

    def make(start: int) -> Iterator[Any]:
        for first, meta in batches(start):
            yield first._replace(image=first.image * np.nan), meta

    return make


def test_a_run_is_rolled_back_and_goes_on_without_the_step_at_fault(
    policies: Policies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, experiment = policies["rollback"]
    batches = batches_of(config, experiment)
    wanted = taken(experiment, batches, leave_out=2)
    found = fit(fresh(experiment), poisoned_at(batches, 2), tmp_path / "a").last
    assert "back to step 0, and on without step 2" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert [row["step"] for row in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [1, 3, 4]
    # Stopped after it and started again, the run leaves out the same step.
    with pytest.raises(Interrupted, match="after step 3"):
        fit(fresh(experiment), signalled(poisoned_at(batches, 2), 3), tmp_path / "b")
    again = fit(fresh(experiment), poisoned_at(batches, 2), tmp_path / "b").last
    jax.tree.map(np.testing.assert_array_equal, again, wanted)
    # An update that is not finite is found at its own step, not at the next one, whose loss it spoils.
    (tmp_path / "c").mkdir()
    fit(spoiling(experiment, at=2), batches, tmp_path / "c")
    assert read_json_object(tmp_path / "c" / "left_out.json") == {"steps": [2]}


def spoiling(experiment: Experiment, at: int) -> Experiment:
    """The experiment whose step `at` gives parameters that are not finite, and says so, though its loss is."""

    def step(state: Any, first: Any, meta: Any) -> Any:
        done = int(state.step) + 1
        new, metrics = experiment.step(state, first, meta)
        if done != at:
            return new, metrics
        return new._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, new.params)), metrics._replace(
            finite=jax.numpy.zeros((), bool)
        )

    return Experiment(**{**vars(fresh(experiment)), "step": step})


def test_a_device_out_of_memory_takes_more_micro_batches_and_goes_on(
    policies: Policies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error that the devices' runtime raises, at step 3, where the state of step 2 is on disk."""
    config, experiment = policies["skip"]
    batches, kept = batches_of(config, experiment), []
    assert config.parallel.micro_batches == 1

    def attempt(tried: Experiment) -> Any:
        def step(state: Any, first: Any, meta: Any) -> Any:
            if tried.config.parallel.micro_batches == 1 and int(state.step) == 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
            return tried.step(state, first, meta)

        return fit(Experiment(**{**vars(fresh(tried)), "step": step}), batches, tmp_path)

    def keep(lowered: Experiment, plan: Plan) -> None:
        kept.append((plan.micro_batches, plan.configured))
        assert plan.compiled_bytes is not None  # the estimate was wrong, so the compiler was asked

    options: dict[str, Any] = {"configured": 1, "resident_bytes": 0, "on_lowered": keep}
    lowered, result = within_memory(experiment, attempt, **options)
    said = " ".join(capsys.readouterr().out.split())
    assert "RESOURCE_EXHAUSTED" in said
    assert "parallel.micro_batches raised from 1 to 2" in said
    assert "going on from step 2 of 4" in said
    assert kept == [(2, 1)]
    assert lowered.config.parallel.micro_batches == 2
    state = fresh(experiment).state
    for number, (first, meta) in zip(range(1, 5), batches(0), strict=True):
        state = (experiment if number < 3 else lowered).step(state, first, meta)[0]
    jax.tree.map(np.testing.assert_array_equal, result.last, state)

    def never(tried: Experiment) -> Any:
        with on_devices():
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(StepOutOfMemory):
        within_memory(lowered, never, **options)
    # What tensorstore says of a full disk holds the same words, and is no lack of memory.
    with pytest.raises(ValueError, match="No space left"), on_devices():
        raise ValueError("RESOURCE_EXHAUSTED: Error writing local file: No space left on device [os_error_code='28']")


def test_a_checkpoint_is_written_after_so_many_minutes(
    tiny_experiment: tuple[Config, Experiment], tmp_path: Path
) -> None:
    config, experiment = tiny_experiment
    train = replace(config.train, checkpoint_minutes=1e-9, checkpoint_every=1000)
    config = replace(config, train=train)
    experiment = Experiment(**{**vars(fresh(experiment)), "config": config})
    batches = batches_of(config, experiment)

    def crashing(start: int) -> Iterator[Any]:
        for step, pair in enumerate(batches(start), start=start + 1):
            if step == 4:
                raise RuntimeError("crash")
            yield pair

    with pytest.raises(RuntimeError, match="crash"):
        fit(experiment, crashing, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest_step() == 3
    checkpoints.close()
