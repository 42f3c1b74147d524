"""A training step for which a device's memory did not suffice, though the plan said so: more micro-batches, and on.

The plan is made of what the compiler says and of what is free at the start. Other programs on the device, or a compiler
that says too little, make a step fail all the same. The state that the failed step was given is lost with it, so the run
goes on from its newest checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from robpicker_jax import parallel
from robpicker_jax.system.faults import is_out_of_memory
from robpicker_jax.system.files import one_line
from robpicker_jax.system.progress import say
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.plan import Plan, micro_batch_choices, prepare

Result = TypeVar("Result")


class StepOutOfMemory(MemoryError):
    """A device's memory did not suffice for a training step."""


@contextlib.contextmanager
def on_devices() -> Iterator[None]:
    """Tell a step for which the memory does not suffice from other errors; steps fail where they, or their results, are read.

    Raises:
        StepOutOfMemory: a device has too little memory.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise StepOutOfMemory(one_line(error)) from error
        raise


def within_memory(
    experiment: Experiment,
    attempt: Callable[[Experiment], Result],
    *,
    configured: int,
    resident_bytes: int,
    on_lowered: Callable[[Experiment, Plan], None],
) -> tuple[Experiment, Result]:
    """Train, in more micro-batches each time that a device's memory does not suffice for a step.

    Several processes cannot be brought to do so together once one of them has failed: there the error ends the run.

    Args:
        experiment: what to train.
        attempt: trains an experiment, from the newest checkpoint on.
        configured: the micro-batches that the user asked for.
        resident_bytes: tomograms and label maps on each device.
        on_lowered: called with the new experiment and its plan, which is to be kept.

    Returns:
        The experiment that was trained to the end, and what its attempt gave.

    Raises:
        StepOutOfMemory: micro-batches may not be raised, or there are no smaller ones.
    """
    while True:
        try:
            return experiment, attempt(experiment)
        except StepOutOfMemory as error:
            settings = experiment.config.parallel
            choices = micro_batch_choices(experiment.config.train, experiment.mesh.size)
            more = [parts for parts in choices if parts > settings.micro_batches]
            if not more or not settings.auto_micro_batches or parallel.process_share()[1] > 1:
                raise
            reason = str(error)
        say(
            f"the memory of a device did not suffice for a step ({reason}): parallel.micro_batches raised from "
            f"{settings.micro_batches} to {more[0]} (batch norm and `batch_dice` are then over a part of the batch); "
            "going on from the newest checkpoint"
        )
        lowered = replace(experiment.config, parallel=replace(settings, micro_batches=more[0]))
        del experiment  # with what it holds on the devices
        # The estimate has been wrong: now the compiler is asked.
        experiment, plan = prepare(
            build_experiment(lowered), configured=configured, resident_bytes=resident_bytes, may_wait=False
        )
        on_lowered(experiment, plan)
