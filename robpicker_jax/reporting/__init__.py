"""Figures and one self-contained HTML page of a run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robpicker_jax.reporting.data import (
        ClassWeights,
        Comparison,
        LabelExample,
        ReportData,
        SpeciesInfo,
        TomogramView,
    )
    from robpicker_jax.reporting.page import write_report
    from robpicker_jax.reporting.stored import load_comparison, load_workdir, save_inputs

__all__ = [
    "ClassWeights",
    "Comparison",
    "LabelExample",
    "ReportData",
    "SpeciesInfo",
    "TomogramView",
    "load_comparison",
    "load_workdir",
    "save_inputs",
    "write_report",
]

_STORED = ("load_comparison", "load_workdir", "save_inputs")


def __getattr__(name: str) -> Any:
    """The names above, imported when they are first used: `report --help` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "page" if name == "write_report" else "stored" if name in _STORED else "data"
    return getattr(import_module(f"{__name__}.{module}"), name)
