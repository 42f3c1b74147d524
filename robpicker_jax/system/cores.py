"""How many threads this process may run at once."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has where a scheduler or `taskset` says so."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
