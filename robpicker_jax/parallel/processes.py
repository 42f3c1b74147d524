"""Several processes (hosts) as one run: joining them, knowing which is the first, agreeing on a value.

Every process runs the same program on its own devices and reads its own share of every batch. Process 0 alone writes
metrics, picks and reports; checkpoints are written by all together. The work folder must be on a file system that
all of them see.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robpicker_jax.config import ParallelConfig
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import error_console, say

_SILENCE_S = 10.0
_SHUTDOWN_S = 7 * 24 * 3600
"""How long the others wait at the end for process 0, which still picks, evaluates and writes the report."""


def start(config: ParallelConfig) -> None:
    """Join the processes of a run, if there are several; the first thing to do, before JAX is asked for devices.

    They are found by arguments (`coordinator_address`, `num_processes`, `process_id`), or from the environment: a SLURM
    step of several tasks, Open MPI, a TPU pod slice. `distributed` true insists on it, false keeps to one process.

    Raises:
        InputError: they could not be joined, with the reason.
    """
    given = {
        "coordinator_address": config.coordinator_address,
        "num_processes": config.num_processes,
        "process_id": config.process_id,
    }
    asked = config.distributed or any(value is not None for value in given.values())
    if config.distributed is False or jax.distributed.is_initialized() or not (asked or _in_cluster()):
        return
    options: dict[str, Any] = {**given, **_slurm_devices(), "initialization_timeout": config.join_timeout_s + 30}
    if "shutdown_timeout_seconds" in inspect.signature(jax.distributed.initialize).parameters:
        options["shutdown_timeout_seconds"] = _SHUTDOWN_S
    try:
        with _patience(config.join_timeout_s):
            jax.distributed.initialize(**options)
    except (ValueError, RuntimeError) as error:
        if not asked and not _launched_as_several():
            return  # a TPU machine on its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the processes of this run could not be joined: {reason}",
            where="parallel",
            fix="give coordinator_address (process 0's HOST:PORT), num_processes and process_id, or distributed false",
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Say what is waited for while processes are joined, and give up after some time.

    JAX itself ends the process after five minutes of silence, from within its C++ part, where no exception passes. So
    the process is ended here before that, with one line and exit code 2.
    """
    alone = "start the others, or give --parallel.distributed false to run in this process alone"

    def announce() -> None:
        say(f"waiting for the other processes of this run ({_expected()}), {seconds:g} s at most; {alone}")

    def give_up() -> None:
        error_console.print(
            f"error: parallel: the other processes of this run ({_expected()}) did not come within {seconds:g} s; "
            f"{alone}; --parallel.join_timeout_s waits longer",
            style="bold red",
            highlight=False,
            soft_wrap=True,
        )
        sys.stdout.flush()
        os._exit(2)

    timers = [threading.Timer(min(_SILENCE_S, seconds / 2), announce), threading.Timer(seconds, give_up)]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _expected() -> str:
    """Who is waited for, as far as the launcher says."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if name in os.environ:
            job = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
            return f"{name}={os.environ[name]}{job}"
    return "parallel.num_processes and coordinator_address say which"


def is_first() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def process_share() -> tuple[int, int]:
    """(index, count) of this process: which part of every batch it reads."""
    return jax.process_index(), jax.process_count()


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all must call it."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag, np.int32))))


def as_first(flag: bool) -> bool:
    """The flag of process 0, in every process; all must call it."""
    return bool(value_of_first(flag))


def value_of_first(value: int) -> int:
    """The number of process 0, in every process; all must call it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


def _launched_as_several() -> bool:
    """Whether a launcher started several processes: `srun` (not the batch script around it) or `mpirun`."""
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    return any(os.environ.get(name, "1").isdigit() and int(os.environ.get(name, "1")) > 1 for name in counts)


def _in_cluster() -> bool:
    """Whether the environment describes several processes, or this may be one host of a TPU pod slice."""
    on_tpu = importlib.util.find_spec("libtpu") is not None and (
        "TPU_WORKER_HOSTNAMES" in os.environ or any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
    )
    return _launched_as_several() or on_tpu


def _slurm_devices() -> dict[str, Any]:
    """Which GPUs a SLURM task takes: all that it sees where it is alone on its node or has GPUs of its own.

    Left to itself JAX gives each task the GPU of its local rank, so one process a node would use one GPU of many.
    """
    if not _launched_as_several() or "SLURM_LOCALID" not in os.environ:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = len(visible.split(",")) if visible else _count_of_gpus(os.environ.get("SLURM_GPUS_ON_NODE", ""))
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", ""))
    alone = tasks == "1" or tasks.startswith("1(")
    own = bool(visible) and ("SLURM_GPUS_PER_TASK" in os.environ or "SLURM_TRES_PER_TASK" in os.environ)
    return {"local_device_ids": list(range(gpus))} if gpus and (alone or own) else {}


def _count_of_gpus(text: str) -> int:
    """The number in what SLURM says of a node's GPUs: `4`, `gpu:4`, `gpu:a100:4(S:0-1)`, or several of these; else 0."""
    entries = [re.sub(r"\(.*?\)", "", entry).strip() for entry in re.split(r",(?![^(]*\))", text)]
    counts = [re.search(r"(?:^|:)(\d+)$", entry, re.ASCII) for entry in entries]
    return sum(int(count[1]) for count in counts if count is not None)
