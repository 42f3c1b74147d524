"""A data set examined before training: `diagnose` gives findings, each with evidence and a remedy."""

from robpicker_jax.diagnosis.diagnose import diagnose
from robpicker_jax.diagnosis.findings import CODES, Diagnosis, Finding

__all__ = ["CODES", "Diagnosis", "Finding", "diagnose"]
