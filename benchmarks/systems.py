"""Every system beside ours, on the same data and with the same number of updates, as one table.

`python -m benchmarks.systems --scale cpu --seeds 3 --jobs 2` is the study `systems` of `benchmarks/paper/` (its file
`systems.yaml` says what each system is): it prints the table, and the record and `docs/results.md` get it too. It can be
stopped at any time; the same command goes on. All options are those of `python -m benchmarks.paper`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.paper.__main__ import main as studies
from robpicker_jax.commands.cli import call

SEEDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, with three seeds unless told otherwise; the exit code is 1 where a run failed."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return studies(["--study", "systems", "--seeds", str(SEEDS), *given])


if __name__ == "__main__":
    sys.exit(call(main, sys.argv[1:]))
