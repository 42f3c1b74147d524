"""Mutated files through a reader: every answer but a result and an `InputError` of one line is a finding."""

from __future__ import annotations

import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from robpicker_jax.system.errors import InputError
from tests.fuzz.corpus import SUBJECTS
from tests.fuzz.mutation import mutated
from tests.fuzz.subject import Subject

SECONDS = 5
"""What a reader may take of the processor; on a busy machine it may have to wait much longer for it."""

_LONGEST_MESSAGE = 2000


class Hang(BaseException):
    """A reader that takes more than its time of the processor; no handler of `Exception` swallows it."""


@dataclass(frozen=True)
class Finding:
    """A file that a reader does not answer as it should.

    Attributes:
        number: number of the mutation, which with the reader's name makes the file again.
        what: the last line of the traceback, or what was wrong with the message.
        where: the innermost line of this project.
        file: the mutated file's content.
    """

    number: int
    what: str
    where: str
    file: bytes


def fuzz(reader: str, numbers: range, folder: Path) -> Iterator[Finding]:
    """Findings among the mutations of some numbers.

    Args:
        reader: a name of `SUBJECTS`.
        numbers: which mutations; a number always gives the same file.
        folder: an empty folder to work in.
    """
    subject = SUBJECTS[reader](folder)
    subject.read(folder / subject.entry)  # the whole file is read
    names = sorted(subject.files)
    for number in numbers:
        rng = Random(f"{reader} {number}")
        chosen = rng.choice(names)
        content = mutated(subject.files[chosen], rng)
        (folder / chosen).write_bytes(content)
        try:
            found = faulty(subject, folder)
            if found is not None:
                yield Finding(number, *found, content)
        finally:
            (folder / chosen).write_bytes(subject.files[chosen])


def faulty(subject: Subject, folder: Path) -> tuple[str, str] | None:
    """What is wrong with how a subject's files are read, as they lie in the folder, and where; None: nothing is."""
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.read(folder / subject.entry)
    except InputError as error:
        text = str(error)
        if len(text) > _LONGEST_MESSAGE or not error.what:
            return f"a message of {len(text)} characters: {text[:80]!r}", ""
    except (Exception, Hang) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "robpicker_jax" in f.filename]
        return what, f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return None


def findings_of(reader: str, numbers: range) -> list[Finding]:
    """As `fuzz`, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return list(fuzz(reader, numbers, Path(folder)))


@contextmanager
def _limited() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
