"""The one exception that means "the input is at fault": every command turns it into one line and exit code 2."""

from __future__ import annotations


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
