"""Studies of the method: `python -m benchmarks.paper --study main --scale cpu --seeds 5 --jobs 2`.

A study crosses data sets with cases (its YAML file says which) and repeats them with several seeds. Each seed draws its
own tomograms, label noise and initial networks, so cases are compared seed by seed. A run that is finished is not
repeated, and one that was stopped, even killed, goes on from its last checkpoint: stop a study at any time, and give
the same command again. What is finished is gathered into docs/results/STUDY_SCALE.json; figures and docs/results.md are
drawn from these files. Runs that such a file holds are not repeated either, so a study can go on in a fresh checkout.

At full scale the study `main` also has SHREC 2019's proteins at the places of its lists; ROBPICKER_TEST_DATA names the
folder of the lists and maps (`benchmarks.paper.shrec`). Without them choose `--data-sets confused`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.paper.collect import as_text, collect, seeds_present
from benchmarks.paper.overview import overview
from benchmarks.paper.page import as_markdown, draw
from benchmarks.paper.record import Record
from benchmarks.paper.restore import read_record, restore
from benchmarks.paper.runner import Runner, say
from benchmarks.paper.study import FOLDER, SCALES, Changes, Study, load_study, read_yaml, study_names
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text


def main(arguments: Sequence[str] | None = None, *, folder: Path = FOLDER) -> int:
    """The command line.

    Args:
        arguments: by default the process's.
        folder: where the studies and their base configurations are described.

    Returns:
        1 where a run failed, else 0.

    Raises:
        InputError: an impossible study, or one whose settings are not those of the runs that are there.
    """
    options = _parser(folder).parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or (Path(scratch) if options.quick else Path("runs") / "paper")
        docs = options.docs or (out / "docs" if options.quick else FOLDER.parents[1] / "docs")
        failed = 0
        for name in options.study.split(",") if options.study else ():
            study = load_study(name, options.scale, folder)
            if options.quick:
                study = study.smaller(read_yaml(FOLDER / "quick.yaml"))
            failed += _study(study, out, docs, options)
        if not options.study and not options.draw_only:
            raise InputError("which study?", where="--study", fix=f"one of {', '.join(study_names(folder))}")
        for path in draw(docs, folder):
            say(f"wrote {path}")
    return 1 if failed else 0


def _study(study: Study, out: Path, docs: Path, options: argparse.Namespace) -> int:
    """Run and gather a study; the number of runs that failed."""
    seeds = range(1 if options.quick else options.seeds)
    failed = []
    record = docs / "results" / f"{study.title}.json"
    restore(study, record, out)
    if not options.draw_only:
        trained = _only(study, "cases", options.cases)
        trained = _only(trained, "data_sets", options.data_sets)
        failed = Runner(trained, out, seeds, jobs=options.jobs, replace_changed=options.replace).run()
    if not seeds_present(study, out):
        say(f"{study.title}: no finished run in {out}")
        return len(failed)
    command = f"python -m benchmarks.paper --study {study.name} --scale {study.scale}"
    gathered = collect(study, out, command=command, former=read_record(record))
    write_text(record, as_text(gathered))
    if study.file.overview:
        content = Record.read(record)
        for data_set, label in content.data_sets.items():
            print(f"{label}\n\n{as_markdown(overview(content, data_set))}")
    return len(failed)


def _only(study: Study, kind: Literal["cases", "data_sets"], names: str | None) -> Study:
    """The study with some of its cases or data sets, for training alone: all that are finished are gathered."""
    known: Mapping[str, Changes] = getattr(study.file, kind)
    wanted = names.split(",") if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        option = f"--{kind.replace('_', '-')}"
        raise InputError(f"{unknown[0]!r} is none of the study's", where=option, fix=f"choose from {', '.join(known)}")
    chosen: dict[str, Any] = {kind: {name: change for name, change in known.items() if name in wanted}}
    return replace(study, file=replace(study.file, **chosen))


def _parser(folder: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", metavar="A,B", help=f"which: {', '.join(study_names(folder))}")
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="base configuration [cpu]")
    parser.add_argument("--seeds", metavar="N", type=int, default=5, help="seeds 0 … N-1 [5]")
    parser.add_argument("--jobs", metavar="J", type=int, default=1, help="runs at a time, each on cores of its own [1]")
    parser.add_argument("--cases", metavar="A,B", help="train these cases only [all]")
    parser.add_argument("--data-sets", metavar="A,B", help="train on these data sets only [all]")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of data and runs [runs/paper]")
    parser.add_argument("--docs", metavar="DIR", type=Path, help="folder of results.md, results/ and images/ [docs]")
    parser.add_argument("--replace", action="store_true", help="delete and repeat runs whose settings have changed")
    parser.add_argument("--quick", action="store_true", help="a tiny data set, two cases, one seed: does it run?")
    parser.add_argument(
        "--draw-only", action="store_true", help="train nothing; gather what is finished (with --study) and draw it"
    )
    return parser


if __name__ == "__main__":
    sys.exit(call(main, sys.argv[1:]))
