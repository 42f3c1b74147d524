"""How much memory there is: of a device, of this machine or of the container it is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any


def machine_bytes(*, free: bool = False, root: Path = Path("/")) -> int | None:
    """Memory of this machine, or of this process's control group where that has less; None if unknown.

    Args:
        free: what is left of it, file caches counted as free.
        root: where proc/ and sys/ are.
    """
    amounts = []
    if free:
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
            amounts += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not amounts:
        with contextlib.suppress(ValueError, OSError, AttributeError):
            amounts.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for folder, names in _control_groups(root):
        with contextlib.suppress(OSError, ValueError):  # no such group, or no limit ("max")
            limit = int((folder / names[0]).read_text(encoding="ascii"))
            amounts.append(limit - _used(folder, names[1]) if free else limit)
    return max(0, min(amounts)) if amounts else None


def device_bytes(device: Any, *, free: bool = False) -> int | None:
    """Memory that programs on a device may use, or what is left of it; on CPU the machine's. None if unknown."""
    if device.platform == "cpu":
        return machine_bytes(free=free)
    statistics = device.memory_stats() or {}
    limit = statistics.get("bytes_limit")
    if limit is None:
        return None
    return int(limit) - (int(statistics.get("bytes_in_use", 0)) if free else 0)


def _control_groups(root: Path) -> list[tuple[Path, tuple[str, str]]]:
    """Folders of this process's memory control groups, from its own up to the root, with the names of their files."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = []
    for line in [*lines, "0::/"]:  # in a container the group's own folder is often mounted as the root
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        folder = mount / path.lstrip("/")
        while True:
            found.append((folder, names))
            if folder == mount:
                break
            folder = folder.parent
    return list(dict.fromkeys(found))


def _used(folder: Path, name: str) -> int:
    """Memory in use by a control group, without file caches, which the kernel gives up when memory is short."""
    used = int((folder / name).read_text(encoding="ascii"))
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            key, value = line.split()
            if key in ("inactive_file", "active_file"):
                used -= int(value)
    return max(0, used)
