"""`pick` killed at random moments and run again: the bytes of an uninterrupted run, no finished tomogram twice (fault B6)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.volumes import open_volume, write_mrc

TOMOGRAMS = 5


def arguments(verb: str, run: Path, volumes: Path, out: Path, *further: str) -> list[str]:
    command = [sys.executable, "-m", f"robpicker_jax.{verb}", "--workdir", str(run), "--out", str(out), *further]
    return [*command, *map(str, sorted(volumes.glob("*.mrc")))]


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def finish(command: list[str]) -> str:
    return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout


def kill_after(command: list[str], out: Path, results: int, delay: float) -> None:
    """SIGKILL the command some time after it has finished a number of tomograms; it may have ended by then."""
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list((out / ".finished").glob("*/*.json"))) < results:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("[!.]*"))}


def finished(out: Path) -> dict[str, int]:
    """When the record of each finished tomogram was written; it is written anew where a tomogram is computed again."""
    found = {}
    for path in (out / ".finished").glob("*/*.json"):
        if '"begun"' not in path.read_text(encoding="utf-8"):
            found[path.stem] = path.stat().st_mtime_ns
    return found


@pytest.fixture(scope="module")
def volumes(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some tomograms, each noisier than the one before."""
    folder = tmp_path_factory.mktemp("volumes")
    with open_volume(tiny_run / "data" / "test" / "test_000.mrc") as source:
        density = source.read()
    rng = np.random.default_rng(0)
    for k in range(TOMOGRAMS):
        noisy = density + k * 0.1 * density.std() * rng.normal(size=density.shape).astype(np.float32)
        write_mrc(folder / f"TS_{k}.mrc", noisy, 22.0)
    return folder


def check_killed(verb: str, run: Path, volumes: Path, folder: Path, moments: list[tuple[int, float]]) -> None:
    finish(arguments(verb, run, volumes, folder / "whole"))
    whole = contents(folder / "whole")
    assert len(whole) >= TOMOGRAMS
    out, before = folder / "killed", {}
    command = arguments(verb, run, volumes, out)
    for results, delay in moments:
        kill_after(command, out, results, delay)
        now = finished(out)
        assert before.items() <= now.items()  # what was finished was not computed again
        before = now
        if len(now) == TOMOGRAMS:
            assert contents(out) == whole
            shutil.rmtree(out)
            before = {}
    finish(command)
    assert before.items() <= finished(out).items()
    assert contents(out) == whole
    again = finished(out)
    assert "5 of 5 tomograms are finished already" in finish(command)
    assert finished(out) == again


@pytest.mark.parametrize("verb", ["pick", pytest.param("segment", marks=pytest.mark.slow)])
def test_b6_a_killed_batch_goes_on(verb: str, tiny_run: Path, volumes: Path, tmp_path: Path) -> None:
    check_killed(verb, tiny_run, volumes, tmp_path, [(1, 0.0), (3, 0.01)])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", ["pick", "segment"])
def test_b6_a_batch_killed_at_dozens_of_moments_goes_on(
    verb: str, tiny_run: Path, volumes: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    moments = [(rng.randrange(TOMOGRAMS + 1), rng.choice((0.0, rng.random() * 0.3))) for _ in range(40)]
    check_killed(verb, tiny_run, volumes, tmp_path, moments)


@pytest.mark.parametrize("verb", ["pick", pytest.param("segment", marks=pytest.mark.slow)])
def test_b6_shards_of_processes_give_the_whole(verb: str, tiny_run: Path, volumes: Path, tmp_path: Path) -> None:
    finish(arguments(verb, tiny_run, volumes, tmp_path / "whole"))
    commands = [arguments(verb, tiny_run, volumes, tmp_path / "parts", "--shard", f"{i}/2") for i in (1, 2)]
    processes = [subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
