"""Batches that the devices cannot share, placement on a mesh, and how processes find each other."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax import parallel
from robpicker_jax.config import ParallelConfig
from robpicker_jax.parallel import processes
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


def test_values_keep_through_placement() -> None:
    mesh = parallel.data_mesh(1)
    tree = {"image": np.arange(12.0, dtype=np.float32).reshape(2, 3, 2), "label": np.array([[1], [2]], np.int32)}
    for placed in (parallel.shard(tree, mesh), parallel.shard(tree, mesh, axis=1), parallel.replicate(tree, mesh)):
        assert all(isinstance(leaf, jax.Array) and leaf.sharding.mesh == mesh for leaf in placed.values())
        for back in (placed, parallel.local(placed)):
            jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match=r"parallel\.devices is 99"):
        parallel.data_mesh(99)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_sizes() -> None:
    mesh = jax.sharding.AbstractMesh((4,), ("data",))
    parallel.check_batch("train.batch_size", 24, mesh)
    with pytest.raises(InputError, match=r"25 does not divide by 4 devices.*24 or 28"):
        parallel.check_batch("train.batch_size", 25, mesh)


def test_processes_that_cannot_be_joined_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise RuntimeError("no such host\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match=r"could not be joined: no such host.*coordinator_address"):
        parallel.start(ParallelConfig(coordinator_address="nowhere:1", num_processes=2, process_id=0))


LAUNCHERS = {
    "nothing": ({}, None),
    "a batch script, not a step": ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, None),
    "a SLURM step of one task": ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, None),
    "one task a node": (
        {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_LOCALID": "0",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            "CUDA_VISIBLE_DEVICES": "0,1,2",
        },
        [0, 1, 2],
    ),
    "one task a GPU": (
        {
            "SLURM_STEP_NUM_TASKS": "8",
            "SLURM_LOCALID": "3",
            "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            "SLURM_GPUS_PER_TASK": "1",
            "CUDA_VISIBLE_DEVICES": "3",
        },
        [0],
    ),
    "tasks that share the GPUs of a node": (
        {"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
        "left to JAX",
    ),
    "one task a node whose GPUs SLURM names by type (B13)": (
        {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_LOCALID": "0",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            "SLURM_GPUS_ON_NODE": "gpu:a100:4",
        },
        [0, 1, 2, 3],
    ),
    "Open MPI": ({"OMPI_COMM_WORLD_SIZE": "2"}, "left to JAX"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_are_recognised(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, devices = LAUNCHERS[launcher]
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "TPU_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)  # no libtpu
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    parallel.start(ParallelConfig(distributed=False))
    assert not calls
    parallel.start(ParallelConfig())
    if devices is None:
        assert not calls
    else:
        assert calls[0].get("local_device_ids", "left to JAX") == devices


@pytest.mark.parametrize(
    ("text", "count"),
    [("4", 4), ("gpu:4", 4), ("gpu:a100:4", 4), ("gpu:a100:4(S:0-1)", 4), ("gpu:a:2(S:0,2),gpu:b:1", 3), ("", 0)],
)
def test_b13_what_slurm_says_of_gpus(text: str, count: int) -> None:
    assert processes._count_of_gpus(text) == count


@given(st.text(max_size=20))
def test_b13_whatever_slurm_says_is_no_traceback(text: str) -> None:
    assert processes._count_of_gpus(text) >= 0


def test_b13_one_process_of_several_says_what_it_waits_for_and_ends_in_time() -> None:
    program = (
        "from robpicker_jax import parallel\n"
        "from robpicker_jax.config import ParallelConfig\n"
        "parallel.start(ParallelConfig(coordinator_address='localhost:45677', num_processes=2, process_id=0, "
        "join_timeout_s=3))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 2
    assert "waiting for the other processes" in done.stdout
    assert "--parallel.distributed false" in done.stderr
    assert "Check failure" not in done.stderr
