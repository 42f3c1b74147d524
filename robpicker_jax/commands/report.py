"""`python -m robpicker_jax.report --workdir DIR`: write a run's report again; `--batch DIR`: one page over a batch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, parser
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.evaluation.calibration_counts import ClassCalibration


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read the run or the batch, write its page."""
    options = _parser().parse_args(list(arguments or ()))
    if options.batch is not None:
        return _batch(options)
    from robpicker_jax.reporting.page import write_report
    from robpicker_jax.reporting.stored import load_workdir
    from robpicker_jax.system.outputs import check_outputs

    own = options.workdir / "report"  # made anew: that is what the command is for
    if options.out is not None and options.out.resolve() != own.resolve():
        check_outputs([options.out / "index.html", *options.out.glob("*.png")], overwrite=options.overwrite)
    data = load_workdir(options.workdir, compare=options.compare)
    index = write_report(data, options.out or options.workdir / "report")
    say(f"report: {index}")
    return 0


def _batch(options: argparse.Namespace) -> int:
    """The page and the table of a batch."""
    from robpicker_jax.datasets.copick_project import results_folder
    from robpicker_jax.picking.finished import entries
    from robpicker_jax.reporting.batch import batch_rows, batch_verb, summarised, write_table
    from robpicker_jax.reporting.batch_page import write_batch_page
    from robpicker_jax.reporting.batch_rejected import batch_rejected
    from robpicker_jax.reporting.rejected import totals
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.system.progress import progress

    if options.compare is not None:
        raise InputError("a batch is compared with nothing", where="--compare", fix="leave it out")
    batch = results_folder(options.batch)
    verb = batch_verb(batch)
    own = batch / "summary"
    out = options.out or own
    if out.resolve() != own.resolve():
        check_outputs([out / "index.html", out / "summary.csv"], overwrite=options.overwrite)
    calibration = None if options.calibration is None else _calibration(options.calibration)
    rows = []
    with progress("reading", sum(1 for _ in entries(batch, verb))) as bar:
        for row in batch_rows(batch, verb, calibration, options.min_score):
            rows.append(row)
            bar.advance(1)
    summary = summarised(verb, rows)
    out.mkdir(parents=True, exist_ok=True)
    rejected = batch_rejected(batch)
    write_table(summary, out / "summary.csv", {name: totals([own]) for name, own in rejected.counts.items()})
    page = write_batch_page(out / "index.html", summary, rejected)
    odd = [row.name for row in summary.rows if row.unusual]
    listed = f"; {len(odd)} stand out: {', '.join(odd[:5])}{' …' if len(odd) > 5 else ''}" if odd else ""
    say(f"{len(rows)} tomogram{'' if len(rows) == 1 else 's'}{listed}")
    say(f"page: {page}; table: {out / 'summary.csv'}")
    return 0


def _calibration(source: Path) -> Mapping[str, ClassCalibration]:
    """What picks were worth by their score, of a run's folder or by a model's card.

    Raises:
        InputError: neither tells.
    """
    from robpicker_jax.models.shipped import find_model
    from robpicker_jax.picking import calibration
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.training.export import load_trained_model

    source = find_model(source)
    if source.is_dir():
        return calibration.load(source).classes
    provenance = load_trained_model(source).card.provenance
    if provenance is None or not provenance.calibration:
        raise InputError("its card holds no calibration", where=source, fix="robpicker export writes files with one")
    return provenance.calibration


def _parser() -> ArgumentParser:
    result = parser(
        "report",
        "Write a run's figures and its HTML page again, from the files in its workdir; no network is loaded.\n"
        "A run that has not finished gives a report of what there is.\n\n"
        "With --batch, write one page and one table (summary.csv) over all tomograms that pick or segment wrote to a\n"
        "folder, or pick into a copick project: counts, scores, what stands out by count or by spectrum, thumbnails.",
    )
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", metavar="DIR", type=Path, help="folder of a training run")
    what.add_argument(
        "--batch", metavar="DIR", type=Path, help="folder or copick_config.json that pick or segment wrote to"
    )
    result.add_argument(
        "--compare", metavar="DIR", type=Path, help="folder of another run on the same data, shown beside it"
    )
    result.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where to write; default: WORKDIR/report, of a batch DIR/summary, of a copick project in its overlay",
    )
    result.add_argument(
        "--calibration",
        metavar="MODEL",
        type=Path,
        help="of a batch: run or model's file that picked; says how many picks of each class are expected to be right",
    )
    result.add_argument(
        "--min-score",
        metavar="S",
        type=float,
        help="of a batch: expect of picks of at least this score; default: of all, by the smallest scores that pick recorded",
    )
    result.add_argument("--overwrite", action="store_true", help="replace a page in the folder of --out")
    return result
