"""Files: written so that nothing is ever half-written, read with one line where they are damaged, and faults of the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robpicker_jax.system.errors import InputError

_LONGEST_REASON = 200
_MANY_FILES = 65536
_TEMPORARY = ".tmp-"
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENXIO,
)
_FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_FULL = "make room on the disk, or use another folder; what was finished is kept"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: "use a folder that can be written",
    errno.EACCES: "change the permissions, or use another folder",
    errno.EPERM: "change the permissions, or use another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path` that replaces `path` when the block ends well, and is removed when not.

    The temporary name keeps the suffixes of `path`, since writers choose their format by them. It tells host and
    process, so that `clear_temporary` knows what a killed process left. A link at `path` is replaced, not followed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _named_after(target):
        handle, name = tempfile.mkstemp(prefix=f"{_mine()}-", suffix=f"-{target.name}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    umask = os.umask(0)
    os.umask(umask)
    try:
        with _named_after(target):
            yield temporary
            # mkstemp makes private files; others must be able to read results, and who may do so already is not changed.
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode) if target.is_file() else 0o666 & ~umask)
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _named_after(target: Path) -> Iterator[None]:
    """Let an error of the disk name the file that was to be written, and not the temporary one, or none."""
    try:
        yield
    except OSError as error:
        if error.filename is None or _TEMPORARY in str(error.filename):
            error.filename, error.filename2 = str(target), None
        raise


def _mine() -> str:
    """How the temporary files of this process begin."""
    return f"{_TEMPORARY}{re.sub('[^A-Za-z0-9]', '', socket.gethostname())[:30]}-{os.getpid()}"


def clear_temporary(folder: Path) -> None:
    """Remove what processes of this machine that were killed left half-written in a folder (not in those within it)."""
    host = _mine().rpartition("-")[0]
    for path in folder.glob(f"{_TEMPORARY}*") if folder.is_dir() else ():
        found = re.fullmatch(rf"{re.escape(host)}-(\d+)-.*", path.name, re.DOTALL)
        if found and path.is_file() and not is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def allow_many_open_files() -> None:
    """Raise this process's limit of open files as far as the system lets it, for work that keeps many volumes open.

    Systems start processes with a limit of 256 or 1024 files out of caution, and let them ask for far more.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the kernel's own limit is lower: macOS
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text to `path` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def from_here(path: str | os.PathLike[str]) -> Path:
    """A path as people read it: relative where it lies below the working folder."""
    found, here = Path(path), Path.cwd()
    return found.relative_to(here) if found.is_relative_to(here) else found


def read_text(path: Path) -> str:
    """The text of a file that a command of this program wrote.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"damaged: not UTF-8 text ({one_line(error)})", where=path) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file that a command of this program wrote.

    Raises:
        InputError: it cannot be read, is not UTF-8, not JSON, or holds something else than an object.
    """
    text = read_text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # of text, of JSON, and of JSON that is nested without end
        raise InputError(f"damaged: not valid JSON ({one_line(error)})", where=path) from None
    if not isinstance(found, dict):
        raise InputError("damaged: not a JSON object", where=path)
    return found


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a .npz file that a command of this program wrote, by name.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return dict(stored)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or one_line(error)})", where=path) from None
    except Exception as error:  # zipfile, zlib, the tokenizer of headers and NumPy each raise errors of their own
        raise InputError(f"damaged: no NumPy archive ({one_line(error)})", where=path) from None


def one_line(error: BaseException) -> str:
    """What an error says, cut to its first line and to what one can read."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def disk_fault(error: BaseException, where: object = "") -> InputError | None:
    """The one line for an error that the user's disk is the cause of; None for any other error.

    The cause may be wrapped: libraries that write in the background raise errors of their own from it, or put the
    system's words into their message.

    Args:
        error: the error.
        where: the folder in question, where the error does not name a file.
    """
    if isinstance(error, OSError):
        return _named(error, where) if error.errno in _DISK_ERRORS else None
    seen: BaseException | None = error
    while seen is not None:
        # Of the system's errors that a library met on its way, only these are surely not its own doing.
        if isinstance(seen, OSError) and seen.errno in _FULL_OR_BROKEN:
            return _named(seen, where)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    for number in _FULL_OR_BROKEN:
        if os.strerror(number).lower() in str(error).lower():
            return InputError(os.strerror(number).lower(), where=where, fix=_FIXES.get(number, ""))
    return None


def _named(error: OSError, where: object) -> InputError:
    number = error.errno or 0
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return InputError(os.strerror(number).lower(), where=files[-1] if files else where, fix=_FIXES.get(number, ""))
