"""How long commands take to answer: `--help` of each, from starting `train` to the end of its first step, and `pick`.

First start: an empty compilation cache, simulated data that are there already. Second start: the same command again,
after a stop. Ten large tomograms follow, with the quickstart's programs in the cache. Each in a process of its own, timed
from outside until metrics.jsonl holds the first step's row (which is written while the second step runs).

`pick` takes the quickstart's network with fresh parameters to the quickstart's test tomogram, from start to end. What a
program that is stored traced and lowered beside the model could save at most is the time of tracing and lowering it; the
compiled program comes from the cache at every start but the first.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._common import Row, main, row, seconds
from benchmarks.input import SHREC, write_tomograms

NAME = "startup"
TIMEOUT_S = 600
_MODEL = """
import sys, time
import jax, numpy as np
from robpicker_jax.config import load_config
from robpicker_jax.models.model_file import save_model
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.export import trained_model

config = load_config("CONFIG", [])
experiment = build_experiment(config)
model = trained_model(experiment, experiment.state)
save_model(sys.argv[1], model)
edge = config.inference.tile or config.patches.size
tiles = jax.ShapeDtypeStruct((config.inference.batch_size, edge, edge, edge, 1), np.float32)
began = time.perf_counter()
model.predict.lower(model.params, model.batch_stats, tiles)
print(time.perf_counter() - began)
""".replace("CONFIG", str(Path(__file__).parents[1] / "configs" / "quickstart.yaml"))
"""Writes the quickstart's network with fresh parameters to a file, and prints how long it takes to trace and lower it."""


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    from robpicker_jax.commands.verbs import verbs

    for verb in ("train", "pick") if quick else verbs():
        time_s = seconds(lambda verb=verb: _python(verb, "--help"), repeats=2 if quick else 5)  # type: ignore[misc]
        yield row(NAME, "--help", verb, time_s, "s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _python("simulate", "--out", str(folder / "data"))
        environment = {**os.environ, "ROBPICKER_CACHE": str(folder / "cache")}
        yield from _starts("quickstart", folder, environment)
        yield from _picking(folder, environment)
        if not quick:
            for part in ("run", "data"):
                shutil.rmtree(folder / part)
            write_tomograms(folder / "data", SHREC, 10, 2500)
            yield from _starts(f"quickstart on 10 tomograms of {SHREC}", folder, environment)


def _starts(case: str, folder: Path, environment: dict[str, str]) -> Iterator[Row]:
    for start in ("first", "second"):
        time_s, step_s = first_step(folder, environment)
        yield row(NAME, f"{case}, train to its first step", f"{start} start", time_s, "s")
        yield row(NAME, f"{case}, train to its first step", f"a step after the {start} start", step_s, "s")


def first_step(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Start (or resume) the quickstart, stop it after some steps: seconds to the first row, and for each step after."""
    rows = folder / "run" / "metrics.jsonl"
    before = _lines(rows)
    command = [sys.executable, "-m", "robpicker_jax", "train", "--workdir", str(folder / "run")]
    command += ["--data.dir", str(folder / "data"), "--data.voxel_size_angstrom", "13", "--train.log_every", "1"]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        times: list[float] = []
        while len(times) < 4 and process.poll() is None and time.perf_counter() - began < TIMEOUT_S:
            if _lines(rows) > before + len(times):
                times.append(time.perf_counter() - began)
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it saves its state, for the next start to go on from
        process.wait()
    if len(times) < 4:
        raise RuntimeError(f"the run ended with exit code {process.returncode} before its fourth step")
    return times[0], (times[-1] - times[0]) / (len(times) - 1)


def _picking(folder: Path, environment: dict[str, str]) -> Iterator[Row]:
    """Picking one small tomogram: the whole command twice, and the part of it that traces and lowers the network."""
    case, model = "pick, a tomogram of the quickstart", folder / "model.rpk"
    lowering_s = float(_output("-c", _MODEL, str(model)))
    tomogram = str(next((folder / "data" / "test").glob("test_*[0-9].mrc")))
    for start in ("first", "second"):
        shutil.rmtree(folder / "picks", ignore_errors=True)
        began = time.perf_counter()
        command = ("pick", "--model", str(model), "--out", str(folder / "picks"), tomogram)
        _python(*command, environment={**environment, "ROBPICKER_CACHE": str(folder / "cache of pick")})
        yield row(NAME, case, f"{start} start", time.perf_counter() - began, "s")
    yield row(NAME, case, "of it to trace and lower the network", lowering_s, "s")


def _output(*arguments: str) -> str:
    """What a Python process prints; this one leaves accelerators to those that it times."""
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def _python(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "robpicker_jax", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


if __name__ == "__main__":
    main(NAME, run)
