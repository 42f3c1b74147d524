"""Fuzzing that is led by what a file reaches: `python -m tests.fuzz.atheris_target READER [libFuzzer options]`.

Atheris (`pip install atheris`, Linux) watches which lines a file reaches and mutates those that reach new ones. The files
of the reader's subject are mutated one at a time, the first byte of an input says which. It runs until it is stopped,
or as libFuzzer's options say, such as `-max_total_time=3600`, and ends with the file at the first finding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["robpicker_jax"]):
    from tests.fuzz.corpus import SUBJECTS
    from tests.fuzz.fuzzing import faulty


class Faulty(Exception):
    """A file that is not answered as it should be."""


def main() -> None:
    """Fuzz one reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in SUBJECTS:
        sys.exit(f"which reader? One of {', '.join(SUBJECTS)}")
    reader = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder, corpus = Path(scratch) / "subject", Path(scratch) / "corpus"
        folder.mkdir()
        corpus.mkdir()
        subject = SUBJECTS[reader](folder)
        names = sorted(subject.files)
        for number, name in enumerate(names):
            (corpus / str(number)).write_bytes(bytes([number]) + subject.files[name])

        def one(data: bytes) -> None:
            chosen = names[data[0] % len(names) if data else 0]
            (folder / chosen).write_bytes(data[1:])
            try:
                found = faulty(subject, folder)
            finally:
                (folder / chosen).write_bytes(subject.files[chosen])
            if found is not None:
                raise Faulty(f"{found[0]} ({found[1]})")

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
