"""The plan before training: what it says, that it is made of the program that runs, and raised micro-batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from robpicker_jax.config import Config, ParallelConfig, load_config
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.memory import machine_bytes
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.plan import Plan, micro_batch_choices, prepare
from robpicker_jax.training.workload import count_parameters, step_bytes, step_operations
from tests.steps import noise_batches
from tests.tiny import write_tiny

GIB = 2**30


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny configuration, batch of 4, no batch norm, a loss patch by patch: micro-batches change nothing.

    Supervised, since a step without a meta level compiles in a fraction of the time.
    """
    path = write_tiny(tmp_path_factory.mktemp("config") / "tiny.yaml")
    settings = ["train.batch_size=4", "train.loss=dice", "train.variant=supervised", "model.batch_norm=false"]
    return load_config(path, settings)


@pytest.fixture(scope="module")
def planned(config: Config) -> tuple[Experiment, Plan]:
    """It as planned where there is memory enough."""
    return prepare(build_experiment(config))


@pytest.mark.parametrize(
    ("done", "room", "waits"), [(0, 30.0, True), (0, 10.0, False), (2, 30.0, True), (3, 30.0, False)]
)
def test_with_room_enough_a_step_is_compiled_when_the_warm_up_is_over(
    config: Config, done: int, room: float, waits: bool
) -> None:
    """`room` is the memory limit over the estimate; `done` steps are done of a warm-up of three."""
    train = replace(config.train, variant="robpicker", meta_warmup_steps=3)
    asked = build_experiment(replace(config, train=train))

    class Refuses:
        def __call__(self, *arguments: object) -> None:
            raise AssertionError("it is called")

        def lower(self, *shapes: object) -> None:
            raise AssertionError("it is compiled")

    limit = room * _estimated(replace(config, train=train)) / GIB
    limited = replace(asked.config, parallel=replace(asked.config.parallel, memory_limit_gib=limit))
    experiment = replace(asked, config=limited, step=Refuses())
    if waits:
        same, plan = prepare(experiment, done=done)
        assert (same, plan.compiled_bytes) == (experiment, None)
        assert "estimated" in plan.lines()[1]
        assert "compiled" not in plan.lines()[1]
    else:
        with pytest.raises(AssertionError, match="it is compiled"):
            prepare(experiment, done=done)
    with pytest.raises(AssertionError, match="it is compiled"):
        prepare(experiment, done=done, may_wait=False)


def _estimated(config: Config) -> float:
    n_classes = len(config.data.species) + 1
    count = sum(count_parameters(config.model, config.train, n_classes).values())
    sizes = {"n_classes": n_classes, "patch_size": config.patches.size}
    return step_bytes(config.model, config.train, **sizes, micro_batches=1, parameters=count)


def counted(config: Config) -> float:
    """Operations of a step by the network's shape."""
    n_classes = len(config.data.species) + 1
    return step_operations(config.model, config.train, n_classes=n_classes, patch_size=config.patches.size)


def copied(tree: object) -> object:
    return jax.tree.map(lambda leaf: leaf.copy(), tree)


def test_the_plan_tells_parameters_work_and_memory(planned: tuple[Experiment, Plan], config: Config) -> None:
    experiment, plan = planned
    assert plan.parameters == count_parameters(config.model, config.train, len(config.data.species) + 1)
    assert plan.parameters["backbone"] == sum(leaf.size for leaf in jax.tree.leaves(experiment.state.params))
    bilevel = replace(config, train=replace(config.train, variant="robpicker"))
    assert set(count_parameters(bilevel.model, bilevel.train, len(bilevel.data.species) + 1)) == {
        "backbone",
        "correction",
        "reweighting",
    }
    # Forward passes by the compiler's count, element-wise work included.
    assert 0.8 < plan.operations / counted(config) < 2
    assert plan.compiled_bytes is not None
    assert 0.2 < plan.estimated_bytes / plan.compiled_bytes < 5
    assert plan.fits
    text = "\n".join(plan.lines())
    assert "backbone" in text
    assert "GFLOP" in text
    assert "compiled" in text
    assert "raised" not in text


def test_the_planned_step_is_the_one_that_runs_and_its_state_is_donated(planned: tuple[Experiment, Plan]) -> None:
    experiment, plan = planned
    plain = build_experiment(experiment.config)
    train, meta = noise_batches(experiment, np.random.default_rng(0))
    state = copied(experiment.state)
    new, _ = experiment.step(state, train, meta)  # type: ignore[arg-type]
    other, _ = plain.step(plain.state, train, meta)
    jax.tree.map(np.testing.assert_array_equal, new, other)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state, state.meta)))  # type: ignore[attr-defined]
    sizes = experiment.step.memory_analysis()  # type: ignore[attr-defined]
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(experiment.state))
    assert sizes.alias_size_in_bytes >= 0.99 * whole  # results are written where the arguments were
    assert plan.compiled_bytes == (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes + sizes.temp_size_in_bytes
    )


def test_micro_batches_are_raised_until_the_step_fits(planned: tuple[Experiment, Plan], config: Config) -> None:
    whole, plan = planned
    assert plan.compiled_bytes is not None
    limit = 0.7 * plan.compiled_bytes / GIB
    tight = replace(config, parallel=replace(config.parallel, memory_limit_gib=limit))
    experiment, raised = prepare(build_experiment(tight))
    assert raised.micro_batches in (2, 4)
    assert raised.configured == 1
    assert experiment.config.parallel.micro_batches == raised.micro_batches
    assert raised.needed_bytes <= limit * GIB < plan.needed_bytes
    assert [line for line in raised.lines() if f"raised from 1 to {raised.micro_batches}" in line]
    assert not raised.counted or raised.operations == pytest.approx(counted(config))
    # The batch is the same, and so, without batch norm and with a loss patch by patch, is the step.
    train, meta = noise_batches(whole, np.random.default_rng(0))
    one, first = whole.step(copied(whole.state), train, meta)  # type: ignore[arg-type]
    other, second = experiment.step(copied(whole.state), train, meta)  # type: ignore[arg-type]
    assert first.inner.loss.shape == second.inner.loss.shape == (4,)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), one.params, other.params)


def test_what_cannot_fit_is_refused_and_what_was_switched_off_is_left_alone(config: Config) -> None:
    small = replace(config, train=replace(config.train, batch_size=1))
    none = replace(small, parallel=replace(small.parallel, memory_limit_gib=1e-6))
    with pytest.raises(InputError, match=r"GiB on each device.* 1 micro-batches"):
        prepare(build_experiment(none))
    off = replace(none, parallel=replace(none.parallel, auto_micro_batches=False))
    experiment, plan = prepare(build_experiment(off))
    assert not plan.fits
    assert experiment.config == off


def test_choices_divide_both_batches_on_every_device(config: Config) -> None:
    def choices(batch: int, meta: int | None, devices: int, variant: str = "robpicker") -> list[int]:
        train = replace(config.train, batch_size=batch, meta_batch_size=meta, variant=variant)  # type: ignore[arg-type]
        return micro_batch_choices(train, devices)

    assert choices(12, None, 1) == [1, 2, 3, 4, 6, 12]
    assert choices(12, 8, 1) == [1, 2, 4]
    assert choices(12, 8, 4) == [1]
    assert choices(12, 8, 4, "supervised") == [1, 3]
    assert choices(25, None, 1) == [1, 5, 25]


def test_a_resumed_run_takes_the_micro_batches_that_were_chosen(config: Config, tmp_path: Path) -> None:
    def planned(settings: ParallelConfig) -> ParallelConfig:
        return folders.as_planned(tmp_path, settings)

    folders.prepare(tmp_path, config)
    assert planned(config.parallel) == config.parallel
    chosen = replace(config, parallel=replace(config.parallel, micro_batches=2))
    record = {"micro_batches": 2, "configured_micro_batches": 1}
    folders.record_plan(tmp_path, chosen, record)
    assert planned(config.parallel) == config.parallel  # before the first checkpoint nothing depends on it
    (tmp_path / "checkpoints" / "latest" / "3").mkdir(parents=True)
    assert folders.read_config(tmp_path) == chosen
    assert planned(config.parallel) == chosen.parallel
    folders.prepare(tmp_path, chosen)  # a start that stops before it plans forgets nothing
    assert planned(config.parallel) == chosen.parallel
    changed = replace(config.parallel, micro_batches=4)
    assert planned(changed) == changed  # a number that the user has changed stays
    off = replace(config.parallel, auto_micro_batches=False)
    assert planned(off) == off


def test_bfloat16_keeps_state_losses_and_hypergradient_in_float32(config: Config) -> None:
    half = replace(
        config,
        model=replace(config.model, compute_dtype="bfloat16", batch_norm=True),
        train=replace(config.train, variant="robpicker"),
    )
    experiment = build_experiment(half)
    train, meta = noise_batches(experiment, np.random.default_rng(0))
    state, metrics = jax.eval_shape(experiment.step, experiment.state, train, meta)
    floats = [leaf.dtype for leaf in jax.tree.leaves((state, metrics)) if jax.numpy.issubdtype(leaf.dtype, np.inexact)]
    assert set(floats) == {np.dtype(np.float32)}
    assert jax.tree.leaves(state.network_state.batch_stats)
    text = experiment.step.lower(experiment.state, train, meta).as_text()  # type: ignore[attr-defined]
    assert "bf16" in text  # and yet it is computed in


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_memory_of_a_container_is_its_control_groups(tmp_path: Path) -> None:
    meminfo = "MemTotal:       9000000 kB\nMemAvailable:   8000000 kB\n"
    stat = f"anon 1\ninactive_file {GIB}\nactive_file {GIB}\n"
    two = write(
        tmp_path / "two",
        {
            "proc/meminfo": meminfo,
            "proc/self/cgroup": "0::/pod/me\n",
            "sys/fs/cgroup/pod/me/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/pod/memory.stat": stat,
        },
    )
    assert machine_bytes(root=two) == 4 * GIB
    assert machine_bytes(free=True, root=two) == 3 * GIB  # of three in use, two are caches
    one = write(
        tmp_path / "one",
        {
            "proc/meminfo": meminfo,
            "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/job\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
        },
    )
    assert machine_bytes(root=one) == 2 * GIB
    assert machine_bytes(free=True, root=one) == GIB
    free = write(tmp_path / "free", {"proc/meminfo": meminfo})
    assert machine_bytes(free=True, root=free) == 8_000_000 * 1024
