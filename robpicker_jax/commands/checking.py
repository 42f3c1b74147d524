"""What is said of a data set at the start of a training: the doctor's findings that cost no reading of every voxel."""

from __future__ import annotations

from pathlib import Path

from robpicker_jax.config import Config
from robpicker_jax.datasets import Survey
from robpicker_jax.diagnosis.quick import quick_findings
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import say


def say_findings(config: Config, survey: Survey, folder: Path) -> None:
    """Print warnings, and refuse data that the training would learn nonsense from.

    A data set that the run simulates itself has the faults that its configuration asks for, and is not refused.

    Args:
        config: the configuration.
        survey: headers and lists of the data set.
        folder: the data set.

    Raises:
        InputError: the first error, unless `data.errors` is "warn".
    """
    findings = quick_findings(
        survey,
        patch=config.patches,
        picking=config.picking,
        with_meta=config.train.uses_meta_batches,
        needs_meta=config.train.uses_meta_tomograms,
    )
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors and config.data.dir is not None and config.data.errors == "refuse":
        more = f" (and {len(errors) - 1} more errors: ask the doctor)" if len(errors) > 1 else ""
        fix = f"{errors[0].fix}; --data.errors warn trains all the same"
        raise InputError(errors[0].what + more, where=folder, fix=fix)
    for finding in findings:
        say(f"warning: {finding.what}; {finding.fix}")
