"""All benchmarks, one after the other, each in a process of its own: `python -m benchmarks`.

The JSON is one list: each benchmark's row that names the machine, then its figures. What takes hours
(`shrec_lookalike`) runs with `--all` only. Studies of the method, which compare scores rather than times, are a command
of their own: `python -m benchmarks.paper`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._markdown import markdown
from robpicker_jax.system.files import write_text

SUITE = (
    "convolution",
    "step",
    "layers",
    "scaling",
    "hypergradients",
    "input",
    "startup",
    "inference",
    "blending",
    "clustering",
    "labels",
    "audit",
    "matching",
    "backbones",
)
LONG = ("shrec_lookalike",)


def main(arguments: list[str] | None = None) -> int:
    """Run them; the exit code is 1 when one of them failed, and the others run all the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller cases, about a minute each on two cores")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all rows as JSON")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write all tables as Markdown")
    parser.add_argument("--all", action="store_true", help=f"the long ones too: {', '.join(LONG)}")
    parser.add_argument("--only", metavar="A,B", help="these, by name")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else [*SUITE, *(LONG if options.all else ())]
    unknown = [name for name in names if name not in SUITE + LONG]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SUITE + LONG)}")
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(names, 1):
            print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
            out, start = Path(scratch) / f"{name}.json", time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(out)]
            code = subprocess.run(command + ["--quick"] * options.quick).returncode
            print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            if code or not out.exists():
                failed.append(name)
                continue
            rows += json.loads(out.read_text(encoding="utf-8"))
            if options.json is not None:  # after each, so that a long run that is stopped keeps what it has
                write_text(options.json, json.dumps(rows, indent=1) + "\n")
            if options.markdown is not None:
                write_text(options.markdown, markdown(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
