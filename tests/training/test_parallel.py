"""The step on many devices equals the step on one; checkpoints move between device counts; refusals and their reasons."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.bilevel import METHODS, accepts
from robpicker_jax.config import load_config
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.metrics_log import read_metrics
from tests.tiny import write_tiny

WORKER = Path(__file__).with_name("parallel_worker.py")
Results = dict[str, dict[str, np.ndarray]]


def start_python(devices: int, *arguments: str) -> subprocess.Popen[str]:
    """Start Python with that many virtual CPU devices."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(WORKER.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True)


def launch(out: Path, devices: int, *arguments: str) -> subprocess.Popen[str]:
    """Start a worker."""
    return start_python(devices, str(WORKER), str(out), *arguments)


def free_port() -> str:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


def finish(*workers: subprocess.Popen[str]) -> None:
    """Wait for workers to end well."""
    try:
        errors = [worker.communicate(timeout=500)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, error in zip(workers, errors, strict=True):
        assert worker.returncode == 0, error[-3000:]


def read(out: Path, devices: int) -> Results:
    """What a worker wrote: case → leaf → value."""
    found: Results = {}
    with np.load(out) as stored:
        assert stored["devices"] == devices
        for key in stored.files:
            if key != "devices":
                case, leaf = key.split(" ", 1)
                found.setdefault(case, {})[leaf] = stored[key]
    return found


def run(out: Path, devices: int, *arguments: str) -> Results:
    """Results of a worker with that many devices."""
    finish(launch(out, devices, *arguments))
    return read(out, devices)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], *, bilevel: bool = True) -> None:
    """Parameters, meta networks, running statistics, losses and per-patch metrics agree to 1e-9."""
    assert one.keys() == other.keys()
    assert not bilevel or one["['slope']"] > 1e-5  # the network is alive: equality says something
    for leaf, value in one.items():
        np.testing.assert_allclose(other[leaf], value, rtol=0, atol=1e-9, err_msg=leaf)


@pytest.fixture(scope="session")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The tangent form on one device, three steps, batch norm included."""
    return run(tmp_path_factory.mktemp("one") / "one.npz", 1, "jit:tangent")["jit:tangent"]


def test_four_devices_equal_one(one_device: dict[str, np.ndarray], tmp_path: Path) -> None:
    for result in run(tmp_path / "four.npz", 4, "jit:tangent", "pmap:tangent").values():
        assert_same(one_device, result)


@pytest.mark.slow
def test_losses_with_sums_over_the_batch_take_them_over_the_devices(tmp_path: Path) -> None:
    """Of a batch whose patches differ in what they hold, Dice of the whole is not the mean of Dice of its halves."""
    losses = ["batch_dice", "nnpu", "dice_cross_entropy:inverse_frequency"]
    one = run(tmp_path / "one.npz", 1, *(f"jit:tangent:1:norm:{loss}" for loss in losses))
    two = run(tmp_path / "two.npz", 2, *(f"pmap:tangent:1:norm:{loss}" for loss in losses))
    for loss in losses:
        assert_same(one[f"jit:tangent:1:norm:{loss}"], two[f"pmap:tangent:1:norm:{loss}"])


@pytest.mark.slow
def test_unrolled_and_every_method_that_the_pmap_form_takes_equal_one_device(tmp_path: Path) -> None:
    able = [name for name in METHODS if accepts(name, "mean") and name != "none"]
    assert "tangent" in able
    assert "unrolled" not in able
    names = ["unrolled", "plain", *able]
    one = run(tmp_path / "one.npz", 1, *(f"jit:{name}" for name in names))
    four = run(tmp_path / "four.npz", 4, "jit:unrolled", "pmap:plain", *(f"pmap:{name}" for name in able))
    for case, result in four.items():
        name = case.split(":")[1]
        assert_same(one[f"jit:{name}"], result, bilevel=name != "plain")


@pytest.mark.slow
def test_micro_batches_equal_the_whole_batch_without_batch_norm(tmp_path: Path) -> None:
    whole = run(tmp_path / "one.npz", 1, "jit:unrolled:1:plain")["jit:unrolled:1:plain"]
    cases = ["jit:unrolled:4:plain", "jit:tangent:2:plain"]
    parts = run(tmp_path / "one_parts.npz", 1, *cases) | run(
        tmp_path / "two.npz", 2, "jit:tangent:4:plain", "pmap:tangent:2:plain"
    )
    for result in parts.values():
        assert_same(whole, result)


@pytest.mark.slow
def test_two_processes_of_two_devices_equal_one_device(one_device: dict[str, np.ndarray], tmp_path: Path) -> None:
    cases, port = ["jit:tangent", "pmap:tangent"], free_port()
    finish(*(launch(tmp_path / "two.npz", 2, *cases, "--join", port, "2", str(index)) for index in (0, 1)))
    for result in read(tmp_path / "two.npz", 4).values():
        assert_same(one_device, result)


@pytest.mark.slow
def test_two_processes_do_the_whole_job_together(tmp_path: Path) -> None:
    config = write_tiny(tmp_path / "tiny.yaml")

    def command(folder: str, *more: str) -> list[str]:
        return ["-m", "robpicker_jax.train", "--config", str(config), "--workdir", str(tmp_path / folder), *more]

    port = free_port()
    joined = ["--parallel.coordinator_address", f"localhost:{port}", "--parallel.num_processes", "2"]
    finish(*(start_python(1, *command("two", *joined, "--parallel.process_id", str(i))) for i in (0, 1)))
    finish(start_python(1, *command("one")))
    two, one = (
        [row for row in read_metrics(tmp_path / name / "metrics.jsonl") if row["kind"] == "train"]
        for name in ("two", "one")
    )
    assert [row["step"] for row in two] == [1, 2, 3, 4]
    for row, expected in zip(two, one, strict=True):
        for key in ("inner_loss", "outer_loss", "weight_mean/ribosome"):
            assert row.get(key) == pytest.approx(expected.get(key), rel=1e-3), key
    assert (tmp_path / "two" / "report" / "index.html").exists()


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_resumes_on_one_and_two(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    run(tmp_path / "first.npz", 4, "jit:tangent", "--save", str(saved))
    resumed = [run(tmp_path / f"{n}.npz", n, "jit:tangent", "--restore", str(saved))["jit:tangent"] for n in (4, 1, 2)]
    assert resumed[0]["['step']"] == 6
    assert_same(resumed[0], resumed[1])
    assert_same(resumed[0], resumed[2])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["parallel.form=pmap", "train.hypergradient=unrolled"], "average of gradients over devices.*tangent"),
        (["parallel.micro_batches=3"], "train.batch_size 2 does not divide by 1 devices times 3 micro-batches.*use 3"),
        (["parallel.devices=99"], "parallel.devices is 99"),
    ],
)
def test_refusals_name_the_reason(overrides: list[str], reason: str, tmp_path: Path) -> None:
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), overrides)
    with pytest.raises(InputError, match=reason):
        build_experiment(config)
