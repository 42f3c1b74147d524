"""Time and memory against size: large data sets, long lists, crowds, many classes, odd and large volumes.

Every size is measured twice in a process of its own, in seconds of the processor; the quicker one counts. The exponent is
the slope of the straight line through the logarithms of time against size; at most 1.1 counts as growing with the size.
The largest volume, 2 GiB of float32, is opened in 4 GiB of address space. `--quick` takes smaller sizes, whose exponents
say less.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks._common import Row, main, row

NAME = "load"
MOST = 1.1
"""Exponent that counts as growing with the size."""

SIZES: dict[str, tuple[int, ...]] = {
    "tomograms in a data set": (75, 150, 300),
    "particles in a CSV list": (250_000, 500_000, 1_000_000),
    "particles in a STAR list": (250_000, 500_000, 1_000_000),
    "objects of an IMOD model": (5_000, 10_000, 20_000),
    "particles at one place, evaluated": (4_000, 8_000, 16_000),
    "particles, evaluated": (8_000, 16_000, 32_000),
    "classes": (15, 30, 60),
    "thousand voxels without a particle, clustered": (4_000, 8_000, 16_000),
    "thousand voxels of particle, clustered": (1_000, 2_000, 4_000, 8_000),
    "thousand voxels one voxel thick, clustered": (1_000, 2_000, 4_000, 8_000),
    "planes of 1024 x 1024": (128, 256, 512),
}
QUICK: dict[str, tuple[int, ...]] = {
    "tomograms in a data set": (10, 40),
    "particles in a CSV list": (10_000, 40_000),
    "particles in a STAR list": (10_000, 40_000),
    "objects of an IMOD model": (1_000, 4_000),
    "particles at one place, evaluated": (1_000, 4_000),
    "particles, evaluated": (1_000, 4_000),
    "classes": (5, 20),
    "thousand voxels without a particle, clustered": (500, 2_000),
    "thousand voxels of particle, clustered": (50, 200),
    "thousand voxels one voxel thick, clustered": (50, 200),
    "planes of 1024 x 1024": (8, 32),
}
LIMITS_GIB = {"planes of 1024 x 1024": 4.0}


def measured(case: str, size: int) -> dict[str, float]:
    """Seconds of the processor and peak memory (MiB) of a case at one size.

    Raises:
        RuntimeError: it failed, for instance for lack of memory within its limit.
    """
    command = [sys.executable, "-m", "benchmarks._load_cases", case, str(size)]
    if case in LIMITS_GIB:
        command += ["--limit-gib", str(LIMITS_GIB[case])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Slope of the least-squares line of log time against log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def run(quick: bool) -> Iterator[Row]:
    """Rows of every case: time and memory at each size, and the exponent."""
    for case, sizes in (QUICK if quick else SIZES).items():
        seconds = []
        try:
            for size in sizes:
                found = min((measured(case, size) for _ in range(2)), key=lambda taken: taken["seconds"])
                seconds.append(max(found["seconds"], 1e-3))
                yield row(NAME, f"{size:,} {case}", "time", found["seconds"], "s")
                yield row(NAME, f"{size:,} {case}", "peak memory", found["peak_mib"], "MiB")
        except RuntimeError as error:
            yield row(NAME, f"{size:,} {case}", "time", None, "s", why=str(error))
            continue
        yield row(NAME, case, f"exponent (at most {MOST} wanted)", exponent(sizes, seconds), "")


if __name__ == "__main__":
    main(NAME, run)
