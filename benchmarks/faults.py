"""A tiny run killed again and again, at its start, while it saves, validates, picks and reports: what comes out in the end?

    python -m benchmarks.faults --kills 200 --folder runs/faults

A run that nobody kills is the measure. Another one is started, killed without warning (SIGKILL, now and then SIGTERM) at a
random moment of a random phase, and started again, until it is finished; then it is compared with the first: every row of
metrics, the evaluation, the picks and the model, bit by bit, and nothing may be left over. Then the next run begins. In
between, a second process is started on the folder of the one that trains: it must end with exit code 2 and one line.

The count is kept in the folder, so that the command itself can be stopped and started again. It ends with
`N kills, D differences`; the exit code is 1 where D is not 0.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from robpicker_jax.commands.replay import first_difference
from robpicker_jax.system.files import write_text
from robpicker_jax.training.metrics_log import read_metrics

ROOT = Path(__file__).parents[1]
PHASES = ("start", "save", "validation", "picking", "report")
CONFIG = """\
data:
  species:
    - {name: ribosome, phantom: ribosome, radius_vox: 5, copies: 3}
    - {name: apoferritin, phantom: apoferritin, radius_vox: 3, copies: 5}
simulation: {shape_zyx: [32, 40, 48], voxel_size_angstrom: 22, train: 1, val: 1, tilt_step_deg: 10, snr: 2}
label_noise: {missing: 0.2, jitter_vox: 0.5}
patches: {size: 16, shift_vox: 4}
model:
  {preset: custom, widths: [4, 6], convs_per_block: 1, bottleneck_convs: 1, decoder_convs: 1, reweighting_hidden: 10}
train: {steps: 8, batch_size: 2, validate_every: 4, checkpoint_every: 2, log_every: 1}
inference: {tile: 32, overlap_vox: 8, batch_size: 2}
"""
_LONGEST_DELAY_S = 1.5
_LONGEST_START_S = 12.0
_LONGEST_RUN_S = 1800.0


@dataclass
class Tally:
    """What has been done so far, as the folder keeps it.

    Attributes:
        kills: runs that were killed, by phase.
        compared: runs that came to their end and were compared.
        refused: second processes that were refused as they should be.
        differences: what was found wrong, in words.
        runs: number of the run that is being killed.
    """

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    compared: int = 0
    refused: int = 0
    differences: list[str] = field(default_factory=list)
    runs: int = 1

    @property
    def killed(self) -> int:
        """Kills of all phases."""
        return sum(self.kills.values())


def command(workdir: Path) -> list[str]:
    """The run, on the data that the whole run simulated."""
    data = [] if workdir.name == "whole" else [f"--data.dir={workdir.parent / 'whole' / 'data'}"]
    config = workdir.parent / "tiny.yaml"
    return [sys.executable, "-m", "robpicker_jax.train", "--config", str(config), "--workdir", str(workdir), *data]


def started(workdir: Path, log: Path) -> subprocess.Popen[bytes]:
    """A process of the run, whose output goes to a file; its compiled programs are kept beside the runs."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "ROBPICKER_CACHE": str(workdir.parent / "cache"),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }
    with log.open("wb") as output:
        return subprocess.Popen(command(workdir), stdout=output, stderr=subprocess.STDOUT, env=environment)


def finished(workdir: Path, log: Path) -> None:
    """Run to the end.

    Raises:
        RuntimeError: it failed.
    """
    code = started(workdir, log).wait(timeout=_LONGEST_RUN_S)
    if code:
        raise RuntimeError(f"exit code {code}: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(no output)"


def _marker(phase: str, workdir: Path) -> Callable[[], bool]:
    """A function that says whether the run has come to a phase since now."""

    def checkpoints() -> frozenset[str]:
        latest = workdir / "checkpoints" / "latest"
        return frozenset(os.listdir(latest)) if latest.is_dir() else frozenset()

    def validated() -> int:
        return sum(row["step"] % 4 == 0 for row in read_metrics(workdir / "metrics.jsonl") if row["kind"] == "train")

    def changed(name: str) -> Callable[[], int]:
        path = workdir / name
        return lambda: path.stat().st_mtime_ns if path.exists() else 0

    look: dict[str, Callable[[], object]] = {
        "save": checkpoints,
        "validation": validated,
        "picking": changed("calibration.json"),
        "report": changed("evaluation.json"),
    }
    if phase == "start":
        return lambda: True
    now = look[phase]
    before = now()

    def reached() -> bool:
        try:
            return now() != before
        except OSError:  # a file that is just being replaced
            return False

    return reached


def killed(workdir: Path, log: Path, phase: str, rng: random.Random, tally: Tally) -> bool:
    """Start the run and kill it in a phase; False where it came to its end before."""
    reached = _marker(phase, workdir)
    delay = rng.uniform(0, _LONGEST_START_S) if phase == "start" else rng.uniform(0, _LONGEST_DELAY_S) ** 2
    number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
    process = started(workdir, log)
    try:
        began = time.monotonic()
        while process.poll() is None and not reached():
            if time.monotonic() - began > _LONGEST_RUN_S:
                raise RuntimeError(f"the run does not come to its end: {_last_line(log)}")
            time.sleep(0.002)
        if phase != "start" and process.poll() is None and rng.random() < 0.1:
            _second(workdir, log.with_suffix(".second"), process, tally)
        time.sleep(delay)
        if process.poll() is not None:
            _check_end(process.returncode, log, tally)
            return False
        process.send_signal(number)
        process.wait(timeout=_LONGEST_RUN_S)
        return True
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _second(workdir: Path, log: Path, first: subprocess.Popen[bytes], tally: Tally) -> None:
    """A second process on the folder, which must be refused as long as the first one works there."""
    code = started(workdir, log).wait(timeout=_LONGEST_RUN_S)
    if first.poll() is not None:
        return  # it had ended by then
    lines = log.read_text(errors="replace").strip().splitlines()
    if code == 2 and "another process trains here" in " ".join(lines):
        tally.refused += 1
    else:
        tally.differences.append(f"a second process ended with code {code}: {lines[-1] if lines else ''}")


def _check_end(code: int, log: Path, tally: Tally) -> None:
    if code:
        tally.differences.append(f"a run that nobody killed ended with code {code}: {_last_line(log)}")


def compare(whole: Path, run: Path) -> str | None:
    """What differs between the run that nobody killed and another one that is finished; None: nothing."""
    difference = first_difference(whole, run)
    if difference is not None:
        return difference
    for name in ("results.json", "report/index.html", "report/inputs.npz", "calibration.json"):
        if not (run / name).is_file():
            return f"{name} is missing"
    left = [
        str(path.relative_to(run)) for path in run.rglob("*") if "tmp" in path.name and not path.name.endswith(".html")
    ]
    return f"left over: {', '.join(left)}" if left else None


def run(kills: int, folder: Path, *, keep: bool = False, say: Callable[[str], None] = print) -> Tally:
    """Kill runs in a folder until there have been so many kills, those of earlier starts included.

    Args:
        kills: how many in all.
        folder: gets the runs and the tally.
        keep: keep runs in which something differed.
        say: takes a line for each run that was compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "tally.json"
    tally = Tally(**json.loads(kept.read_text())) if kept.is_file() else Tally()
    whole, log = folder / "whole", folder / "log.txt"
    write_text(folder / "tiny.yaml", CONFIG)
    if not (whole / "results.json").is_file():
        say("a run that nobody kills")
        finished(whole, log)
    while True:
        workdir = folder / f"run_{tally.runs}"
        rng = random.Random(f"{tally.runs} {tally.killed}")
        enough = tally.killed >= kills
        phase = min(PHASES, key=lambda name: (tally.kills[name] + rng.random(), name))
        alive = False if enough else killed(workdir, log, phase, rng, tally)
        if alive:
            tally.kills[phase] += 1
        else:
            if enough:
                finished(workdir, log)
            difference = compare(whole, workdir)
            if difference is not None:
                tally.differences.append(f"{workdir.name}: {difference}")
            tally.compared += 1
            tally.runs += 1
            if difference is None or not keep:
                shutil.rmtree(workdir)
            done = ", ".join(f"{count} in {name}" for name, count in tally.kills.items())
            say(f"{tally.compared} runs compared, {tally.killed} kills ({done}), {len(tally.differences)} differences")
        write_text(kept, json.dumps(asdict(tally), indent=1) + "\n")
        if enough:
            return tally


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="kills in all, with earlier starts; default: 20")
    parser.add_argument(
        "--folder", type=Path, help="where runs and count are kept, to go on later; default: a new folder"
    )
    parser.add_argument("--keep", action="store_true", help="keep runs in which something differed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tally = run(options.kills, options.folder or Path(scratch), keep=options.keep, say=_say)
    for difference, count in collections.Counter(tally.differences).items():
        _say(f"  {count} x {difference}")
    _say(f"second processes refused: {tally.refused}; runs compared: {tally.compared}")
    _say(f"{tally.killed} kills, {len(tally.differences)} differences")
    return 1 if tally.differences else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
