"""Limits of a process that tests lower."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def few_files(more: int) -> Iterator[None]:
    """Let the process open only so many files more than it holds."""
    resource = pytest.importorskip("resource", reason="limits of open files are POSIX's")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free.fileno() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
