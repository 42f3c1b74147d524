"""One process at a time trains in a folder: a second one would delete the first one's checkpoints.

The operating system holds the lock (`flock`), so that it ends with the process, however that ends. On file systems
without such locks the file's text decides: a lock of a process that is gone from this machine counts for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import disk_fault, is_alive

LOCK = ".lock"
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if absent.

    Raises:
        InputError: another process holds it (named by number, host and job), or the folder cannot be written.
    """
    path = workdir / LOCK
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # Never through a link: the lock's file is emptied, and a link may lead to a file that is somebody's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise disk_fault(error, workdir) or error from None
    try:
        _take(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        holder = _holder(descriptor)
    except OSError:  # a file system without locks
        holder = _holder(descriptor)
        if not holder or (holder.get("host") == socket.gethostname() and not _runs(holder.get("process"))):
            return
    job = f", job {holder['job']}" if holder.get("job") else ""
    since = f", since {holder['since']}" if holder.get("since") else ""
    raise InputError(
        f"another process trains here: process {holder.get('process', '?')} on {holder.get('host', '?')}{job}{since}",
        where=path.parent,
        fix=f"let it finish, or stop it (if it is gone for sure, delete {path.name}); or use another --workdir",
    )


def _this_process() -> dict[str, Any]:
    job = next((os.environ[name] for name in _JOB_VARIABLES if os.environ.get(name)), None)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "job": job, "since": since}


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):  # it is just being written
        return {}
    return found if isinstance(found, dict) else {}


def _runs(process: object) -> bool:
    return isinstance(process, int) and is_alive(process)
