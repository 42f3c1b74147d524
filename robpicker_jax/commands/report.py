"""`python -m robpicker_jax.report --workdir DIR`: write a run's report again from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.commands.cli import ArgumentParser, console, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read the run, write its report."""
    options = _parser().parse_args(list(arguments or ()))
    from robpicker_jax.reporting.page import write_report
    from robpicker_jax.reporting.stored import load_workdir
    from robpicker_jax.system.outputs import check_outputs

    own = options.workdir / "report"  # made anew: that is what the command is for
    if options.out is not None and options.out.resolve() != own.resolve():
        check_outputs([options.out / "index.html", *options.out.glob("*.png")], overwrite=options.overwrite)
    data = load_workdir(options.workdir, compare=options.compare)
    index = write_report(data, options.out or options.workdir / "report")
    console.print(f"report: {index}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _parser() -> ArgumentParser:
    result = parser(
        "report",
        "Write a run's figures and its HTML page again, from the files in its workdir; no network is loaded.\n"
        "A run that has not finished gives a report of what there is.",
    )
    result.add_argument("--workdir", metavar="DIR", type=Path, required=True, help="folder of a training run")
    result.add_argument(
        "--compare", metavar="DIR", type=Path, help="folder of another run on the same data, shown beside it"
    )
    result.add_argument("--out", metavar="DIR", type=Path, help="where to write; default: WORKDIR/report")
    result.add_argument("--overwrite", action="store_true", help="replace a page in the folder of --out")
    return result
