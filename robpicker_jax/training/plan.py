"""Before training: what a step takes, whether it fits the memory, and smaller micro-batches where it does not.

The plan describes the program that training then runs: it is lowered and compiled once (or read from the compilation
cache), its memory and its number of operations are read from the compiler, and the trainer runs it. Where the warm-up
comes first and memory is plenty by the estimate alone, the trainer compiles it when the warm-up ends: so the first step is
done sooner, and faults of data and settings show earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from robpicker_jax import parallel
from robpicker_jax.config import PatchConfig, TrainConfig
from robpicker_jax.models import n_parameters
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.memory import device_bytes
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.workload import step_bytes, step_operations

_USABLE = 0.9
"""Share of the free memory that a step is given: the allocator loses some of it, and other programs need some."""

_PLENTY = 20.0
"""Memory of so many times the estimate suffices without asking the compiler: four times the largest error that was seen, of
narrow networks, whose label correction takes more than themselves."""

_NAMES = {"backbone": "backbone", "correction": "label correction", "reweighting": "data reweighting"}


@dataclass(frozen=True)
class Plan:
    """What a training step takes.

    Attributes:
        parameters: number of parameters of each network.
        operations: floating-point operations of a step, on all devices together.
        counted: whether the operations were counted from the network's shape, because the compiler gave no number.
        estimated_bytes: memory of a step on each device, counted from the network's shape.
        compiled_bytes: the same of the compiled program: arguments, results, temporaries; None: the compiler does not tell,
            or it is compiled later.
        limit_bytes: what a step may take on each device; None: unknown.
        resident_bytes: tomograms and label maps on each device.
        micro_batches: parts in which each device takes its share of a batch.
        configured: the same number as the user configured it.
        devices: what it runs on.
    """

    parameters: dict[str, int]
    operations: float
    counted: bool
    estimated_bytes: float
    compiled_bytes: int | None
    limit_bytes: int | None
    resident_bytes: int
    micro_batches: int
    configured: int
    devices: str

    @property
    def needed_bytes(self) -> float:
        """Memory of a step on each device, by the compiler or else by the estimate."""
        return self.estimated_bytes if self.compiled_bytes is None else self.compiled_bytes

    @property
    def fits(self) -> bool:
        """Whether a step fits the memory, as far as is known."""
        return self.limit_bytes is None or self.needed_bytes <= self.limit_bytes

    def lines(self) -> list[str]:
        """The plan in words, a few lines."""
        counts = ", ".join(f"{_NAMES.get(name, name.replace('_', ' '))} {n:,}" for name, n in self.parameters.items())
        compiled = "" if self.compiled_bytes is None else f"{_gib(self.compiled_bytes)} compiled, "
        limit = "unknown" if self.limit_bytes is None else _gib(self.limit_bytes)
        resident = f"; tomograms and label maps {_gib(self.resident_bytes)}" if self.resident_bytes else ""
        counted = " (counted)" if self.counted else ""
        found = [
            f"parameters: {counts}",
            f"a step: {self.operations / 1e9:,.3g} GFLOP{counted}; memory on each device {compiled}"
            f"{_gib(self.estimated_bytes)} estimated, {limit} allowed{resident}; {self.devices}",
        ]
        if self.micro_batches != self.configured:
            found.append(
                f"the step does not fit: parallel.micro_batches raised from {self.configured} to {self.micro_batches} "
                "(batch norm and `batch_dice` are then over a part of the batch)"
            )
        return found

    def record(self) -> dict[str, Any]:
        """The plan as numbers, for versions.json."""
        return {
            "parameters": sum(self.parameters.values()),
            "gflop_per_step": round(self.operations / 1e9, 3),
            "estimated_gib": round(self.estimated_bytes / 2**30, 4),
            "compiled_gib": None if self.compiled_bytes is None else round(self.compiled_bytes / 2**30, 4),
            "limit_gib": None if self.limit_bytes is None else round(self.limit_bytes / 2**30, 4),
            "resident_gib": round(self.resident_bytes / 2**30, 4),
            "micro_batches": self.micro_batches,
            "configured_micro_batches": self.configured,
        }


def prepare(
    experiment: Experiment, *, configured: int = 1, resident_bytes: int = 0, done: int = 0, may_wait: bool = True
) -> tuple[Experiment, Plan]:
    """Compile the training step, and take more micro-batches until it fits the memory; or see that it can wait.

    Args:
        experiment: with the step as `build_experiment` leaves it.
        configured: the micro-batches that the user asked for, where an earlier start has raised them.
        resident_bytes: tomograms and label maps that are on each device.
        done: steps of the run that are done.
        may_wait: whether the step may be compiled later, where it is not taken first.

    Returns:
        The experiment with its step compiled, for batches of the configuration's sizes alone, and the plan. Where
        micro-batches were raised, it is another experiment, whose configuration says so. Where the warm-up comes first and
        memory is plenty, the experiment as it was, whose step is not compiled yet.

    Raises:
        InputError: the step does not fit even with one sample in each micro-batch.
    """
    train = experiment.config.train
    if may_wait and train.is_bilevel and done < train.n_meta_warmup_steps:
        plan, _ = _plan(experiment, None, configured, resident_bytes)
        if not parallel.any_process(plan.limit_bytes is None or _PLENTY * plan.estimated_bytes > plan.limit_bytes):
            return experiment, plan
    choices = micro_batch_choices(experiment.config.train, experiment.mesh.size)
    while True:
        experiment, plan, fixed = _compiled(experiment, configured, resident_bytes)
        settings = experiment.config.parallel
        # Processes may have different memory; all of them take the same decision.
        if not settings.auto_micro_batches or not parallel.any_process(not plan.fits):
            return experiment, plan
        larger = [parts for parts in choices if parts > settings.micro_batches]
        if not larger:
            raise InputError(
                f"a training step needs {_gib(plan.needed_bytes)} on each device even in {settings.micro_batches} "
                f"micro-batches, and {_gib(plan.limit_bytes or 0)} are allowed",
                fix="lower patches.size, set model.remat: true or model.compute_dtype: bfloat16, set patches.input: "
                "host, or parallel.memory_limit_gib if you know better",
            )
        chosen = larger[0]
        if plan.limit_bytes is not None and plan.limit_bytes > fixed:
            # Temporaries shrink with the part. Take the first choice that should fit, so that not every choice is compiled.
            wanted = settings.micro_batches * (plan.needed_bytes - fixed) / (plan.limit_bytes - fixed)
            chosen = next((parts for parts in larger if parts >= wanted), larger[-1])
        chosen = parallel.value_of_first(chosen)
        experiment = build_experiment(
            replace(experiment.config, parallel=replace(settings, micro_batches=chosen)), state=experiment.state
        )


def micro_batch_choices(train: TrainConfig, n_devices: int) -> list[int]:
    """Numbers of micro-batches that divide every device's share of the training and the meta batch, rising."""
    sizes = [train.batch_size]
    if train.uses_meta_batches:
        sizes.append(train.meta_rows)
    most = min(sizes) // n_devices
    return [m for m in range(1, most + 1) if all(size % (n_devices * m) == 0 for size in sizes)]


def batch_shapes(train: TrainConfig, patches: PatchConfig, mesh: jax.sharding.Mesh) -> tuple[Batch, Batch]:
    """Shapes, types and sharding of the training batches and the meta batch of a step, as `feeding` makes them."""
    edge = patches.size
    meta_rows = train.meta_rows if train.uses_meta_batches else 0

    def batch(lead: tuple[int, ...], axis: int) -> Batch:
        def shape(rest: tuple[int, ...], dtype: Any) -> Any:
            return jax.ShapeDtypeStruct((*lead, *rest), dtype, sharding=parallel.batch_sharding(mesh, axis))

        cube = (edge, edge, edge)
        is_clean = shape((), np.bool_) if axis and train.meta_share else None
        return Batch(shape((*cube, 1), np.float32), shape(cube, np.uint8), shape((), np.int32), is_clean)

    return batch((train.inner_steps, train.batch_size), 1), batch((meta_rows,), 0)


def _compiled(experiment: Experiment, configured: int, resident_bytes: int) -> tuple[Experiment, Plan, float]:
    """The experiment with its step compiled, the plan, and the bytes that micro-batches do not change."""
    batches = batch_shapes(experiment.config.train, experiment.config.patches, experiment.mesh)
    step: Callable[..., Any] = experiment.step.lower(experiment.state, *batches).compile()  # type: ignore[attr-defined]
    return replace(experiment, step=step), *_plan(experiment, step, configured, resident_bytes)


def _plan(experiment: Experiment, step: Any, configured: int, resident_bytes: int) -> tuple[Plan, float]:
    """The plan, and the bytes that micro-batches do not change; of the compiled step, or of None by counting alone."""
    config, mesh = experiment.config, experiment.mesh
    limit = _limit(experiment, resident_bytes)
    trees = {"backbone": experiment.state.params, **experiment.state.meta}
    parameters = {name: n_parameters(trees[name]) for name in ("backbone", *config.train.meta_networks)}
    sizes = {"n_classes": experiment.n_classes, "patch_size": config.patches.size}
    estimated = step_bytes(
        config.model,
        config.train,
        **sizes,
        micro_batches=config.parallel.micro_batches,
        parameters=sum(parameters.values()),
    )
    estimated /= mesh.size
    found, fixed = (None, 0.0) if step is None else _memory(step)
    local = mesh.local_devices
    if local[0].platform == "cpu":  # they share the machine's memory
        estimated, fixed = estimated * len(local), fixed * len(local)
        found = None if found is None else found * len(local)
    counted = step_operations(config.model, config.train, **sizes)
    compiled = None if step is None else _operations(step)
    if compiled is not None:
        compiled *= mesh.size
        # The compiler counts the body of a loop (micro-batches, inner steps) once, and library calls at times not at all.
        compiled = compiled if compiled > counted / 2 else None
    plan = Plan(
        parameters=parameters,
        operations=counted if compiled is None else compiled,
        counted=compiled is None,
        estimated_bytes=estimated,
        compiled_bytes=found,
        limit_bytes=limit,
        resident_bytes=resident_bytes,
        micro_batches=config.parallel.micro_batches,
        configured=configured,
        devices=f"{mesh.size} x {local[0].device_kind}",
    )
    return plan, fixed


def _limit(experiment: Experiment, resident_bytes: int) -> int | None:
    config, devices = experiment.config, experiment.mesh.local_devices
    if config.parallel.memory_limit_gib is not None:
        return max(0, int(config.parallel.memory_limit_gib * 2**30) - resident_bytes)
    known = [amount for device in devices if (amount := device_bytes(device, free=True)) is not None]
    # The state is in memory already, and the step's arguments include it.
    present = sum(leaf.nbytes for leaf in jax.tree.leaves(experiment.state))
    present *= len(devices) if devices[0].platform == "cpu" else 1
    return int(_USABLE * (min(known) + present)) if known else None


def _memory(step: Any) -> tuple[int | None, float]:
    """(bytes of a compiled program in all, those of its arguments and results)."""
    try:
        sizes = step.memory_analysis()
        fixed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return int(fixed + sizes.temp_size_in_bytes), float(fixed)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # not every backend reports it
        return None, 0.0


def _operations(step: Any) -> float | None:
    """Operations of a compiled program on one device; None where the compiler does not say."""
    try:
        costs = step.cost_analysis()
        flops = (costs[0] if isinstance(costs, list) else costs)["flops"]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, KeyError, IndexError):
        return None
    return float(flops) if flops and flops > 0 else None


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB"
