"""Ask the C library for large memory pages, and to keep memory, which only a process's environment can do.

A training step on CPU allocates hundreds of megabytes anew at every call. In pages of 4 KiB, the kernel spends much of the
step's time on handing them out one by one. glibc takes pages of 2 MiB for large blocks when `GLIBC_TUNABLES` says
`glibc.malloc.hugetlb=1`, which it reads only when a process starts. It also gives large blocks back to the kernel after
each step and asks for them again, cleared, for the next; in training they are better kept. (`benchmarks.step` measures
a step with and without.)
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

LARGE_PAGES = "glibc.malloc.hugetlb=1"
_UNLIMITED = 2**40
KEEP = f"glibc.malloc.mmap_threshold={_UNLIMITED}:glibc.malloc.trim_threshold={_UNLIMITED}:glibc.malloc.arena_max=1"
"""No block is given back; one arena, since the others are too small for large blocks."""
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment_with_large_pages(keep: bool = False) -> dict[str, str] | None:
    """This process's environment with the request for large pages; None if it would change nothing.

    Args:
        keep: also keep memory that is freed.

    It changes nothing without Linux and glibc 2.35 or later, under a kernel that gives large pages to all or to nobody, or
    where `GLIBC_TUNABLES` is set already: then it is left as the user has it.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return None
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return None
    try:
        asked_for = "[madvise]" in _MODE.read_text()
    except OSError:
        return None
    return {**os.environ, "GLIBC_TUNABLES": f"{LARGE_PAGES}:{KEEP}" if keep else LARGE_PAGES} if asked_for else None


def restart_with_large_pages(keep: bool = False) -> None:
    """Start this command again with large pages, in the same process; return if that would change nothing.

    To be called before anything heavy is imported: what the process did so far is done again.
    """
    environment = environment_with_large_pages(keep)
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
