"""The one exception that means "the input is at fault": every command turns it into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input from a user: what is wrong, where it is, and how to fix it.

    Args:
        what: what is wrong, as one clause ("the file is truncated").
        where: file, row or configuration key that is at fault, or "" when `what` says it.
        fix: what the user can do about it, as one clause, or "" when `what` makes it obvious.
    """

    def __init__(self, what: str, *, where: object = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, str(where), fix
        message = f"{self.where}: {what}" if self.where else what
        if fix:
            message = f"{message}; {fix}"
        super().__init__(" ".join(message.split()))


@contextmanager
def located(where: object) -> Iterator[None]:
    """Give an `InputError` from inside the block this `where`, unless it has one of its own."""
    try:
        yield
    except InputError as error:
        if error.where or not str(where):
            raise
        raise InputError(error.what, where=where, fix=error.fix) from None
