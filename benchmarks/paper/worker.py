"""The process of one run: `python -m benchmarks.paper.worker FOLDER [--cores 0,1]`, started by the runner."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.commands.cli import run


def main(arguments: Sequence[str]) -> int:
    """Keep to the cores, then do the run of the folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", help="numbers of the cores to run on [all]")
    options = parser.parse_args(arguments)
    if options.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    # JAX makes one thread for each core that it finds when it is imported.
    from benchmarks.paper.measure import carry_out

    carry_out(options.folder)
    return 0


if __name__ == "__main__":
    run(main, keep_memory=True)
