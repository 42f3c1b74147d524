"""All benchmarks, one after the other, each in a process of its own: `python -m benchmarks`.

The JSON is one list: each benchmark's row that names the machine, then its figures. A run that was stopped goes on with
`--resume`. `--accelerator` runs those whose figures a GPU or TPU changes, the most wanted first, until its minutes are used
up; on a machine without one it runs all the same, and their rows say "not measured". `--compare` prints which ratios got
worse since an earlier run on the same machine. What takes hours (`shrec_lookalike`) runs with `--all` only. Studies of the
method, which compare scores rather than times, are a command of their own: `python -m benchmarks.paper`.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks._common import Row
from benchmarks._compare import MARGIN, changes, comparison_table
from benchmarks._markdown import markdown
from robpicker_jax.system.files import write_text

SUITE = (
    "convolution",
    "step",
    "layers",
    "scaling",
    "hypergradients",
    "inner_steps",
    "input",
    "startup",
    "inference",
    "blending",
    "clustering",
    "labels",
    "audit",
    "matching",
    "backbones",
    "load",
)
LONG = ("shrec_lookalike",)
ACCELERATOR = ("step", "hypergradients", "inference", "convolution", "layers", "scaling", "matching", "input")
"""Those whose figures an accelerator changes, in the order in which they are wanted."""
ACCELERATOR_MINUTES = 25.0


@dataclass
class Outcome:
    """What a run of several benchmarks came to.

    Attributes:
        rows: of all that finished.
        failed: those that ended with an error.
        late: those for which no time was left.
    """

    rows: list[Row]
    failed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run them; the exit code is 1 when one of them failed or a ratio got worse, and the others run all the same."""
    options = _options(arguments)
    before = None if options.compare is None else json.loads(options.compare.read_text(encoding="utf-8"))
    kept = options.resume and options.json.exists()
    outcome = Outcome(json.loads(options.json.read_text(encoding="utf-8")) if kept else [])
    done = {item["benchmark"] for item in outcome.rows}
    for _ in run([name for name in options.names if name not in done], outcome, options.quick, options.minutes):
        if options.json is not None:  # after each, so that a long run that is stopped keeps what it has
            write_text(options.json, json.dumps(outcome.rows, indent=1) + "\n")
        if options.markdown is not None:
            write_text(options.markdown, markdown(outcome.rows))
    if outcome.late:
        print(f"no time was left for: {', '.join(outcome.late)} (--resume goes on)", file=sys.stderr)
    if outcome.failed:
        print(f"failed: {', '.join(outcome.failed)}", file=sys.stderr)
    found = [] if before is None else changes(before, outcome.rows)
    if before is not None:
        Console(markup=False, emoji=False).print(comparison_table(found, options.margin))
    return 1 if outcome.failed or any(change.worse > options.margin for change in found) else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, with the names of the benchmarks and the time limit that follow from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller cases, about a minute each on two cores")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all rows as JSON")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write all tables as Markdown")
    parser.add_argument("--all", action="store_true", help=f"the long ones too: {', '.join(LONG)}")
    parser.add_argument("--only", metavar="A,B", help="these, by name")
    parser.add_argument("--accelerator", action="store_true", help="what an accelerator changes, in limited time")
    parser.add_argument("--minutes", type=float, help=f"time limit; with --accelerator {ACCELERATOR_MINUTES:g}")
    parser.add_argument("--resume", action="store_true", help="keep what --json holds, and run the others")
    parser.add_argument("--compare", metavar="FILE", type=Path, help="JSON of an earlier run: which ratios got worse?")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"share that a ratio may get worse [{MARGIN}]")
    options = parser.parse_args(arguments)
    if options.resume and options.json is None:
        parser.error("--resume goes on from the file of --json: name it")
    everything = ACCELERATOR if options.accelerator else (*SUITE, *(LONG if options.all else ()))
    options.names = options.only.split(",") if options.only else list(everything)
    unknown = [name for name in options.names if name not in SUITE + LONG]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SUITE + LONG)}")
    if options.minutes is None:
        options.minutes = ACCELERATOR_MINUTES if options.accelerator else math.inf
    return options


def run(names: Sequence[str], outcome: Outcome, quick: bool, minutes: float) -> Iterator[str]:
    """Run benchmarks and add to what they came to; yields the name of each that has finished.

    Args:
        names: of the benchmarks.
        outcome: is added to.
        quick: smaller cases.
        minutes: after these, the one that runs is stopped and no other is begun.
    """
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(names, 1):
            start = time.monotonic()
            if start >= end:
                outcome.late.append(name)
                continue
            print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
            out = Path(scratch) / f"{name}.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(out)] + ["--quick"] * quick
            try:
                code = subprocess.run(command, timeout=None if math.isinf(end) else end - start).returncode
            except subprocess.TimeoutExpired:
                outcome.late.append(name)
                continue
            print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            if code or not out.exists():
                outcome.failed.append(name)
                continue
            outcome.rows += json.loads(out.read_text(encoding="utf-8"))
            yield name


if __name__ == "__main__":
    sys.exit(main())
