"""What all benchmarks share: their command line, flat rows, the machine's row, timing, peak memory, the table.

A row is `{"benchmark", "case", "metric", "value", "unit"}`; a figure that could not be taken has `"value": null` and
`"why"`. The first row of the JSON names machine, versions and date.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from robpicker_jax.system.files import write_text
from robpicker_jax.system.large_pages import restart_with_large_pages

Row = dict[str, Any]
T = TypeVar("T")
PACKAGES = ("robpicker-jax", "jax", "numpy", "scipy", "scikit-learn", "torch")


def row(benchmark: str, case: str, metric: str, value: float | None, unit: str, *, why: str = "", **more: Any) -> Row:
    """One figure; without a value, `why` says what it would have needed. NaN and infinity count as no value.

    `better`, "lower" or "higher", marks a ratio that `python -m benchmarks --compare` compares with an earlier run's.
    """
    if value is not None and not math.isfinite(value):
        value, why = None, f"came out as {value}"
    result: Row = {"benchmark": benchmark, "case": case, "metric": metric, "value": value, "unit": unit}
    if value is None:
        result["why"] = f"not measured: {why}"
    return result | more


def machine_row(benchmark: str) -> Row:
    """Machine, versions, date and command, as the leading row."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "robpicker-jax" not in versions:  # a checkout that is not installed
        import robpicker_jax

        versions["robpicker-jax"] = robpicker_jax.__version__
    return row(
        benchmark,
        "machine",
        "machine",
        None,
        "",
        why="this row names the machine",
        machine=_processor(),
        devices=_devices(),
        memory_gib=_memory_gib(),
        system=platform.platform(terse=True),
        versions=versions,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["python -m", f"benchmarks.{benchmark}", *_without_file(sys.argv[1:])]),
    )


def _without_file(arguments: list[str]) -> list[str]:
    """A command line without `--json FILE`: where the rows went to says nothing about them."""
    if "--json" not in arguments:
        return arguments
    at = arguments.index("--json")
    return arguments[:at] + arguments[at + 2 :]


def main(
    benchmark: str,
    run: Callable[[bool], Iterable[Row]],
    arguments: list[str] | None = None,
    *,
    keep_memory: bool = False,
) -> None:
    """Parse `--quick` and `--json FILE`, run, print the table and write the rows.

    Args:
        benchmark: its module's name.
        run: quick → rows; a generator's rows are announced as they come.
        arguments: command line, by default the process's.
        keep_memory: as training does, see `robpicker_jax.system.large_pages`.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is not None and program.name == f"benchmarks.{benchmark}":  # false where a test calls it
        restart_with_large_pages(keep_memory)  # the commands of the package do the same
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}", description=sys.modules[run.__module__].__doc__
    )
    parser.add_argument("--quick", action="store_true", help="smaller cases; at most a minute on two cores")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows as JSON")
    options = parser.parse_args(arguments)
    console, status = Console(markup=False, emoji=False), Console(stderr=True, markup=False, emoji=False)
    rows = [machine_row(benchmark)]
    for item in run(options.quick):
        rows.append(item)
        if status.is_terminal:
            status.print(f"{item['case']}: {item['metric']} {_value(item)}", style="dim", highlight=False)
    console.print(table(rows))
    if options.json is not None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")


def table(rows: list[Row]) -> Table:
    """The rows as a table, the machine in its caption."""
    head, *figures = rows
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    result = Table(
        title=head["benchmark"],
        caption=f"{head['machine']}; {head['devices']}; {head['memory_gib']} GiB\n{versions}\n{head['date']}",
    )
    for name in ("case", "metric"):
        result.add_column(name)
    result.add_column("value", justify="right")
    result.add_column("unit")
    previous = None
    for index, item in enumerate(figures):
        last = index + 1 == len(figures) or figures[index + 1]["case"] != item["case"]
        name = "" if item["case"] == previous else item["case"]
        result.add_row(name, item["metric"], _value(item), item["unit"], end_section=last)
        previous = item["case"]
    return result


def seconds(function: Callable[[], object], *, repeats: int = 3, warmup: int = 1) -> float:
    """Smallest wall time of several calls: the machine's noise only ever adds."""
    for _ in range(warmup):
        function()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def peak_memory_mib(function: Callable[[], T]) -> tuple[T, float | None]:
    """A call's result, and the most by which it raised this process's resident memory, MiB; None where it is not Linux."""
    before = _from_here()
    result = function()
    return result, None if before is None else (_status("VmHWM") - before) / 1024


def _from_here() -> int | None:
    """Let the peak of resident memory begin here: the memory that is resident now, kB; None where that cannot be done."""
    gc.collect()
    try:
        # The allocator keeps freed memory. A call that used it again would seem to need none.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, see proc(5)
        return _status("VmRSS")
    except (OSError, AttributeError):
        return None


def _status(key: str) -> int:
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"no {key}")
    return int(match[1])


def _processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = found[1] if found else name
    except OSError:
        pass
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def _devices() -> str:
    if "jax" not in sys.modules:
        return "no accelerator used"
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _value(item: Row) -> str:
    if item["value"] is None:
        return "not measured"
    value = item["value"]
    return str(value) if isinstance(value, int) else f"{value:.4g}"
