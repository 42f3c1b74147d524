"""A study's cases in one table: F1 by size group, and what each took: time, memory, parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from benchmarks.paper.record import Record


def overview(record: Record, data_set: str) -> Iterator[list[str]]:
    """The head of the table, then a row for each case; means over seeds, "–" where nothing is measured.

    Columns: macro F1, F1 with calibrated thresholds, F1 by size group from large to small, seconds of training (validations
    and compilation included), milliseconds an update (median), by how much training raised the process's memory, and the
    parameters of the segmentation network.
    """
    score, whole = "{:.3f}".format, "{:.0f}".format
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "macro F1": ("plain/f1/macro", score),
        "calibrated": ("calibrated/f1/macro", score),
        **{group: (f"plain/f1/group {group}", score) for group in reversed(record.groups)},
        "training, s": ("training_seconds", whole),
        "ms an update": ("seconds_per_update", lambda seconds: whole(1000 * seconds)),
        "memory, MiB": ("memory_mib", whole),
        "parameters": ("parameters", _short),
    }
    yield ["case", "seeds", *columns]
    for case in record.cases(data_set):
        means = [(record.mean(data_set, case, metric).mean, text) for metric, text in columns.values()]
        cells = ["–" if math.isnan(mean) else text(mean) for mean, text in means]
        yield [record.label(case), str(len(record.seeds(data_set, case))), *cells]


def _short(number: float) -> str:
    """A count to three digits."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
