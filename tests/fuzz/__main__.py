"""`python -m tests.fuzz [READER …] [--count N] [--first K]`: mutated files through every reader; exit 1 on findings.

Prints one line for each kind of finding, with the number of the mutation that gives it again (`--first K --count 1`).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.corpus import SUBJECTS
from tests.fuzz.fuzzing import fuzz

_MEMORY = 8 << 30


def main() -> int:
    """Fuzz the readers; how they did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=[], help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--count", type=int, default=20_000, help="mutated files for each reader; default: 20,000")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation; default: 0")
    parser.add_argument("--keep", type=Path, help="folder for one file of each kind of finding")
    options = parser.parse_args()
    # A file that makes a reader ask for more memory than any small file needs ends in a MemoryError, which is a finding.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    failed = 0
    for reader in options.readers or SUBJECTS:
        started, kinds = time.monotonic(), {}
        with tempfile.TemporaryDirectory() as folder:
            for found in fuzz(reader, range(options.first, options.first + options.count), Path(folder)):
                kind = (found.what.partition(":")[0], found.where)
                if kind not in kinds:
                    print(f"  {reader} {found.number}: {found.what} ({found.where})", flush=True)
                    if options.keep is not None:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{reader}-{found.number}").write_bytes(found.file)
                kinds[kind] = kinds.get(kind, 0) + 1
        failed += bool(kinds)
        seconds = time.monotonic() - started
        print(f"{reader}: {options.count} files, {sum(kinds.values())} findings, {seconds:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
