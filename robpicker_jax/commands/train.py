"""`train`: the whole job. Data, bi-level training, picks of the test tomograms, evaluation, report."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import configured_parser, parse_configured

if TYPE_CHECKING:
    from robpicker_jax.config import Config

_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Imports and tracing make many objects that stay; with Python's default of 700, a start spends seconds on them."""

_DESCRIPTION = """\
Train a particle picker from noisy annotations, pick the test tomograms, evaluate the picks and write a report.

Without --config a small data set is simulated and used. The same command again goes on where it was interrupted; a
finished run says so. --train.beside [supervised] also trains without the meta networks on the same data, in
WORKDIR-supervised; the reports of runs in neighbouring folders that differ in the variant alone show each other.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = configured_parser("train", _DESCRIPTION)
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="folder of the run; default: runs/NAME[-VARIANT]")
    options, config = parse_configured(parser, list(arguments or ()))
    # After parsing, so that --help and bad arguments answer at once.
    from robpicker_jax.training import run_folder

    run_job(config, options.workdir or run_folder.default_workdir(config.train.variant, options.config))
    return 0


def run_job(config: Config, workdir: Path) -> None:
    """Do the main job, with garbage collection set for it, and after it those that `train.beside` asks for.

    Raises:
        InputError: as `main_job.run`.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *thresholds[1:])
    try:
        from robpicker_jax.commands import beside, main_job

        main_job.run(config, workdir)
        others = beside.runs_beside(config, workdir)
        for folder, other in others:
            beside.announce(other, folder)
            main_job.run(other, folder)
        if others:
            beside.compare(config, workdir, others)
    finally:
        gc.set_threshold(*thresholds)
