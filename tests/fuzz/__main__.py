"""`python -m tests.fuzz [READER …] [--count N] [--first K]`: mutated files through every reader; exit 1 on findings.

Prints one line for each kind of finding, with the number of the mutation that gives it again (`--first K --count 1`), and
at the end how many files were read, what was found, and how much memory the process has needed at most.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.corpus import SUBJECTS
from tests.fuzz.fuzzing import SECONDS, fuzz

_ADDRESSES = 8 << 30
_LARGEST_MIB = 1024


def main() -> int:
    """Fuzz the readers; how they did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=[], help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--count", type=int, default=20_000, help="mutated files for each reader; default: 20,000")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation; default: 0")
    parser.add_argument("--keep", type=Path, help="folder for one file of each kind of finding")
    options = parser.parse_args()
    # A file that makes a reader ask for more memory than any small file needs ends in a MemoryError, which is a finding.
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    readers, found = options.readers or list(SUBJECTS), 0
    for reader in readers:
        started = time.monotonic()
        count = _findings(reader, range(options.first, options.first + options.count), options.keep)
        found += count
        seconds = time.monotonic() - started
        peak = _peak_mib()
        print(f"{reader}: {options.count} files, {count} findings, {seconds:.0f} s, peak {peak} MiB", flush=True)
    files = f"{len(readers) * options.count:,} files of {len(readers)} readers"
    print(f"{files}: {found} findings (a file that takes {SECONDS} s is one), peak {_peak_mib()} MiB", flush=True)
    return 1 if found or _peak_mib() > _LARGEST_MIB else 0


def _findings(reader: str, numbers: range, keep: Path | None) -> int:
    """Print the kinds of findings of a reader, keep a file of each, and count all findings."""
    kinds: dict[tuple[str, str], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for found in fuzz(reader, numbers, Path(folder)):
            kind = (found.what.partition(":")[0], found.where)
            if kind not in kinds:
                print(f"  {reader} {found.number}: {found.what} ({found.where})", flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{reader}-{found.number}").write_bytes(found.file)
            kinds[kind] = kinds.get(kind, 0) + 1
    return sum(kinds.values())


def _peak_mib() -> int:
    """The largest memory of this process so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())
