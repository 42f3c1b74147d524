"""What may be written to: nothing that exists is replaced unasked, and no input is replaced at all.

Every command asks here before its work begins, with the files that it is going to write.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from robpicker_jax.system.errors import InputError

OVERWRITE = "--overwrite replaces it"


def check_outputs(
    outputs: Iterable[Path],
    *,
    inputs: Iterable[Path | str | None] = (),
    overwrite: bool = False,
    own: Collection[Path] = (),
    fix: str = OVERWRITE,
) -> None:
    """Refuse files that must not be replaced, before anything is computed.

    Args:
        outputs: files and folders that are going to be written.
        inputs: what is read, files and folders; whatever stands at an output and in such a folder is an input too.
        overwrite: whether the user allows files that exist to be replaced.
        own: outputs that an earlier, interrupted run of the same work began, which may be replaced.
        fix: what the user can do about files that exist.

    Raises:
        InputError: an output is an input, or it exists and may not be replaced.
    """
    read = [path for path in (Path(source) for source in inputs if source) if path.exists()]
    there = [path for path in outputs if os.path.lexists(path)]  # a link to nothing is something that exists
    for path in there:
        if any(_is_in(path, source) for source in read):
            raise InputError("is an input, and would be replaced by what is written", where=path, fix="write elsewhere")
    taken = [path for path in there if path not in own]
    if taken and not overwrite:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise InputError(f"exists{more}", where=taken[0], fix=fix)


def _is_in(path: Path, source: Path) -> bool:
    """Whether a path that exists is an input, or a file within one that is a folder."""
    if not path.exists():
        return False
    if source.is_dir():
        return not path.is_dir() and source.resolve() in path.resolve().parents
    return os.path.samefile(path, source)
