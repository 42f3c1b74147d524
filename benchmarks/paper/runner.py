"""Do what is missing of a study: one process a run, several at a time, each on cores of its own."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.paper.study import FURTHER, JOB, LOG, METRICS_VERSION, RESULT, Run, Study, fingerprint
from robpicker_jax.config import Config, dump_config, load_config
from robpicker_jax.config.loading import validated
from robpicker_jax.simulation import DatasetRecipe
from robpicker_jax.simulation.manifest import settings_of
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

_ROOT = Path(__file__).resolve().parents[2]


def folder_of(out: Path, study: Study, run: Run) -> Path:
    """The folder of a run."""
    return out / study.title / run.data_set / run.case / f"seed{run.seed}"


def data_folder(config: Config, root: Path) -> Path:
    """Where the simulated data of a configuration live below `root`; runs on the same data share them."""
    settings = settings_of(DatasetRecipe(config.data.species, config.simulation, config.label_noise))
    return root / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def read_result(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, with the fingerprint that its settings have in this version; None: not finished.

    A setting that was added since has its default; one that is no longer known gives a fingerprint of its own, and so do
    figures that meant something else.
    """
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if result.get("metrics_version", 0) != METRICS_VERSION:
        return result | {"fingerprint": "other metrics"}
    try:
        config = validated(Config, result["config"], folder / RESULT)
        result["fingerprint"] = fingerprint(config, result.get("further"))
    except InputError:
        result["fingerprint"] = "unknown"
    return result


def read_further(folder: Path) -> dict[str, Any]:
    """What a run depends on beside its configuration; empty where it was prepared without such."""
    path = folder / FURTHER
    return read_json_object(path) if path.exists() else {}


class Runner:
    """The runs of a study in a folder.

    Args:
        study: the study.
        out: the folder; data are in `out/data`, runs in `out/STUDY_SCALE/DATA SET/CASE/seedN`.
        seeds: the seeds.
        jobs: processes at a time.
        replace_changed: delete runs whose settings have changed since, instead of refusing them.

    Raises:
        InputError: more processes than cores, or runs whose settings have changed.
    """

    def __init__(
        self, study: Study, out: Path, seeds: Sequence[int], *, jobs: int = 1, replace_changed: bool = False
    ) -> None:
        self.study, self.out, self.seeds = study, out, seeds
        cores = _cores()
        if not 1 <= jobs <= len(cores):
            raise InputError(f"--jobs {jobs} on {len(cores)} cores", fix=f"use 1 to {len(cores)}")
        self._shares = [",".join(map(str, part)) for part in np.array_split(cores, jobs)]
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stop = threading.Event()
        self._replace = replace_changed

    def missing(self) -> list[Run]:
        """Runs that are not finished; those finished elsewhere below `out`, in another study, are copied from there.

        Raises:
            InputError: runs that were made with other settings.
        """
        known = self._finished_anywhere()
        missing, changed = [], []
        for run in self.study.runs(self.seeds):
            folder, wanted = folder_of(self.out, self.study, run), self.study.fingerprint(run)
            if self._is_changed(folder, wanted):
                changed.append((run, folder))
            elif read_result(folder) is not None:
                continue
            elif wanted in known and not (folder / JOB).exists():
                write_text(folder / RESULT, (known[wanted] / RESULT).read_text(encoding="utf-8"))
            else:
                missing.append(run)
        if changed and not self._replace:
            raise InputError(
                f"{len(changed)} runs were made with other settings or metrics ({changed[0][0]} …)",
                where=self.out / self.study.title,
                fix="use another --out, or --replace to delete and repeat them",
            )
        for run, folder in changed:
            shutil.rmtree(folder)
            missing.append(run)
        order = {run: number for number, run in enumerate(self.study.runs(self.seeds))}
        return sorted(missing, key=order.__getitem__)

    def run(self) -> list[Run]:
        """Do the missing runs; a run that fails leaves its log, and the others go on.

        Returns:
            The runs that failed.

        Raises:
            KeyboardInterrupt: asked to stop; runs have saved where they are.
        """
        missing = self.missing()
        shares: queue.SimpleQueue[str] = queue.SimpleQueue()
        for share in self._shares:
            shares.put(share)
        say(f"{self.study.title}: {len(missing)} runs to do, {len(self._shares)} at a time")
        failed = []
        with _signals_as_interrupts(), ThreadPoolExecutor(len(self._shares)) as pool:
            try:
                for number, (run, ok) in enumerate(pool.map(lambda run: self._do(run, shares), missing), 1):
                    if not ok:
                        failed.append(run)
                    if number % 20 == 0:
                        say(f"{number} of {len(missing)} runs done")
            except KeyboardInterrupt:
                self._stop.set()
                for process in list(self._processes):
                    process.send_signal(signal.SIGTERM)
                raise
        return failed

    def _do(self, run: Run, shares: queue.SimpleQueue[str]) -> tuple[Run, bool]:
        if self._stop.is_set():
            return run, False
        folder = folder_of(self.out, self.study, run)
        if read_result(folder) is not None:
            return run, True  # by another runner in the same folder, meanwhile
        share, began = shares.get(), time.monotonic()
        try:
            self._prepare(folder, run)
            code = self._execute(folder, share)
        finally:
            shares.put(share)
        result = read_result(folder) if code == 0 else None
        if result is None:
            say(f"{run}: " + ("stopped" if self._stop.is_set() else f"FAILED, see {folder / LOG}"))
            return run, False
        score = result["metrics"].get("plain/f1/macro")
        say(f"{run}: macro F1 {'–' if score is None else f'{score:.3f}'}, {time.monotonic() - began:.0f} s")
        return run, True

    def _prepare(self, folder: Path, run: Run) -> None:
        config = self.study.config(run)
        data = data_folder(config, self.out / "data").resolve()
        if further := self.study.further(run):
            write_text(folder / FURTHER, json.dumps(further, indent=1) + "\n")
        write_text(folder / JOB, dump_config(replace(config, data=replace(config.data, dir=str(data)))))

    def _execute(self, folder: Path, cores: str) -> int:
        """The run's process; its exit code."""
        command = [sys.executable, "-m", "benchmarks.paper.worker", str(folder), "--cores", cores]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with (folder / LOG).open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the runner alone, which then asks the runs to stop.
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            self._processes.add(process)
            if self._stop.is_set():
                process.send_signal(signal.SIGTERM)
            code = process.wait()
            self._processes.discard(process)
        return code

    def _is_changed(self, folder: Path, wanted: str) -> bool:
        """Whether a run in a folder, finished or not, is one with other settings."""
        result = read_result(folder)
        if result is not None:
            return bool(result["fingerprint"] != wanted)
        if not (folder / JOB).exists():
            return False
        try:
            return fingerprint(load_config(folder / JOB), read_further(folder)) != wanted
        except InputError:
            return True

    def _finished_anywhere(self) -> dict[str, Path]:
        """Fingerprint → folder of every finished run below `out`."""
        folders = [path.parent for path in sorted(self.out.glob(f"*/*/*/*/{RESULT}"))]
        return {result["fingerprint"]: folder for folder in folders if (result := read_result(folder)) is not None}


def say(text: str) -> None:
    """A line for whoever watches the study."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM stops a study as Ctrl-C does; outside of the main thread nothing is changed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
