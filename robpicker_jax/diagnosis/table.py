"""A diagnosis as tables for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from robpicker_jax.diagnosis.findings import Diagnosis
from robpicker_jax.diagnosis.hypotheses import AS_IS

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
_SHOWN = 6


def findings_table(diagnosis: Diagnosis) -> Table:
    """Severity, code, what was found and how to fix it."""
    table = Table("", "code", "finding", "how to fix it", show_lines=True)
    for finding in diagnosis.findings:
        style = _STYLES[finding.severity]
        table.add_row(Text(finding.severity, style), finding.code, Text(finding.what), Text(finding.fix))
    return table


def readings_table(diagnosis: Diagnosis) -> Table | None:
    """The best-fitting readings of the coordinates, and the one as they are; None where nothing was measured."""
    if not diagnosis.hypotheses:
        return None
    table = Table("coordinates read", "score", "inside", title="density at the picks against random positions")
    for rank, row in enumerate(diagnosis.hypotheses):
        if rank < _SHOWN or row["hypothesis"] == AS_IS:
            table.add_row(str(row["hypothesis"]), f"{row['score']:.1f}", f"{row['inside']:.0%}")
    return table
