"""`train`: the whole job. Data, bi-level training, picks of the test tomograms, evaluation, report."""

from __future__ import annotations

import contextlib
import gc
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, split_overrides

if TYPE_CHECKING:
    from robpicker_jax.config import Config

_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Imports and tracing make many objects that stay; with Python's default of 700, a start spends seconds on them."""

_DESCRIPTION = """\
Train a particle picker from noisy annotations, pick the test tomograms, evaluate the picks and write a report.

Without --config a small data set is simulated and used. The same command again goes on where it was interrupted; a
finished run says so. --replay runs the record of a run again and compares every number. --train.beside [supervised]
also trains without the meta networks on the same data, in WORKDIR-supervised; the reports of runs in neighbouring
folders that differ in the variant alone show each other.

--folds 5 trains and tests five times, each time with other test tomograms, on all annotated tomograms of the data set
(of those that a fold does not test, one in eight is its meta set), in WORKDIR/fold_1 …, and writes one summary,
WORKDIR/cross_validation.json. It is gone on with in the same way; --fold 2 does that fold alone.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = list(arguments or ())
    rest, overrides = split_overrides(arguments)
    options = _parser().parse_args(rest)
    config = _configuration(options, overrides)
    # After parsing, so that --help and bad arguments answer at once.
    if options.replay is not None:
        return _replayed(options.replay, options.workdir, arguments)
    from robpicker_jax.training import run_folder

    workdir = options.workdir or run_folder.default_workdir(config.train.variant, options.config)
    if options.folds is None and options.fold is None:
        run_job(config, workdir)
        return 0
    from robpicker_jax.commands.cross_validation import cross_validate
    from robpicker_jax.system.errors import InputError

    if options.folds is None:
        raise InputError("needs the number of folds", where="--fold", fix="give --folds as well")
    cross_validate(config, workdir, options.folds, run_job, only=options.fold)
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("train", _DESCRIPTION)
    result.add_argument("--workdir", metavar="DIR", type=Path, help="folder of the run; default: runs/NAME[-VARIANT]")
    result.add_argument(
        "--init-from",
        metavar="RUN_OR_FILE",
        help="fine-tune a trained model (a run, a file, or the name of one that ships): train.init_from, with a third of the "
        "configuration's steps and 0.3 of its learning rate (all of it for new species), unless flags say otherwise",
    )
    result.add_argument("--folds", metavar="N", type=int, help="cross-validate over so many folds of the tomograms")
    result.add_argument("--fold", metavar="K", type=int, help="with --folds: do fold K alone, from 1")
    result.add_argument(
        "--replay",
        metavar="W",
        type=Path,
        help="run the record of workdir W again, beside it or in --workdir, and compare bit by bit; exit code 1: they differ",
    )
    result.add_argument(
        "--checkpoint.minutes", dest="minutes", metavar="M", help="short for --train.checkpoint_minutes"
    )
    return result


def _configuration(options: Namespace, overrides: list[str]) -> Config:
    """The configuration, of a fine-tuning with its short schedule."""
    from robpicker_jax.config import load_config

    if options.init_from is None:
        return load_config(options.config, overrides)
    load_config(options.config, overrides)  # what is wrong with it is said before JAX is imported
    from robpicker_jax.training.starting import fine_tuning

    return fine_tuning(options.config, options.init_from, overrides)


def _replayed(record: Path, workdir: Path | None, arguments: Sequence[str]) -> int:
    """The exit code of a replay, whose settings are the record's and no others."""
    from robpicker_jax.system.errors import InputError

    others = [
        flag for flag in arguments if flag.startswith("--") and flag.partition("=")[0] not in ("--replay", "--workdir")
    ]
    if others:
        raise InputError(
            f"{others[0]} has no part in a replay, which takes its settings from the record", where="--replay"
        )
    with _few_collections():
        from robpicker_jax.commands.replay import replay

        return replay(record, workdir)


def run_job(config: Config, workdir: Path) -> None:
    """Do the main job, with garbage collection set for it, and after it those that `train.beside` asks for.

    Raises:
        InputError: as `main_job.run`.
    """
    with _few_collections():
        from robpicker_jax.commands import beside, main_job
        from robpicker_jax.training.starting import with_network_of_start

        config = with_network_of_start(config, workdir)
        main_job.run(config, workdir)
        others = beside.runs_beside(config, workdir)
        for folder, other in others:
            beside.announce(other, folder)
            main_job.run(other, folder)
        if others:
            beside.compare(config, workdir, others)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
