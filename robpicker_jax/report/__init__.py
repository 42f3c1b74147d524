"""Figures and one self-contained HTML page of a run."""

from robpicker_jax.report.data import (
    ClassWeights,
    Comparison,
    LabelExample,
    ReportData,
    SpeciesInfo,
    TomogramView,
)
from robpicker_jax.report.page import write_report
from robpicker_jax.report.stored import load_comparison, load_workdir, save_inputs

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
