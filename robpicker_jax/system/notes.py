"""Notes: what was assumed of a file that leaves something open, said once on standard error, wherever it is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from robpicker_jax.system.progress import error_console

_gathering: ContextVar[list[str] | None] = ContextVar("gathering", default=None)
_said: set[str] = set()


def note(text: str, *, where: object = "") -> None:
    """Say something that a user should know and that stops nothing; the same note is said only once.

    Args:
        text: what is assumed or odd, and what to do where it is wrong, as one sentence.
        where: the file it is about.
    """
    line = " ".join(f"{where}: {text}".split()) if str(where) else text
    gathered = _gathering.get()
    if gathered is not None:
        gathered.append(line)
    elif line not in _said:
        _said.add(line)
        error_console.print(f"note: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def gathered_notes() -> Iterator[list[str]]:
    """Collect the notes of a block in a list, for whoever reports them in another way, instead of printing them."""
    found: list[str] = []
    token = _gathering.set(found)
    try:
        yield found
    finally:
        _gathering.reset(token)
