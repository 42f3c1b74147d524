"""What got slower: the ratios of a run of the benchmarks beside those of an earlier one.

Times differ from machine to machine, and from one hour to the next on a virtual one. Ratios that were taken within one
run do so less. A row that can be compared says which way is better: `better="lower"` or `better="higher"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks._common import Row

MARGIN = 0.25
"""By this share of its earlier value a ratio may get worse: they scatter by up to a fifth on shared machines."""


@dataclass(frozen=True)
class Change:
    """A ratio now and before.

    Attributes:
        benchmark, case, metric: which.
        before, now: its values, above 0.
        worse: by what share it got worse; negative where it got better.
    """

    benchmark: str
    case: str
    metric: str
    before: float
    now: float
    worse: float


def changes(before: Sequence[Row], now: Sequence[Row]) -> list[Change]:
    """The ratios that both runs took, the worst change first."""
    earlier = {_key(item): item["value"] for item in before if "better" in item}
    found = []
    for item in now:
        old, new = (earlier.get(_key(item)), item["value"]) if "better" in item else (None, None)
        if not old or not new or min(old, new) <= 0:
            continue
        worse = new / old - 1 if item["better"] == "lower" else old / new - 1
        found.append(Change(*_key(item), before=old, now=new, worse=worse))
    return sorted(found, key=lambda change: -change.worse)


def comparison_table(found: Sequence[Change], margin: float) -> Table:
    """The ratios that got worse by more than a margin; the caption says how many were compared."""
    slower = [change for change in found if change.worse > margin]
    table = Table(title=f"worse by more than {margin:.0%}", caption=f"{len(slower)} of {len(found)} ratios")
    for name in ("benchmark", "case", "metric"):
        table.add_column(name)
    for name in ("before", "now", "worse by"):
        table.add_column(name, justify="right")
    for change in slower:
        numbers = (f"{change.before:.3g}", f"{change.now:.3g}", f"{change.worse:.0%}")
        table.add_row(change.benchmark, change.case, change.metric, *numbers)
    return table


def _key(item: Mapping[str, str]) -> tuple[str, str, str]:
    return item["benchmark"], item["case"], item["metric"]
