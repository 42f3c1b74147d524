"""`train --folds N`: the main job once for each fold of the tomograms, and one summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from robpicker_jax import parallel
from robpicker_jax.commands import run_state
from robpicker_jax.config import Config, SplitsConfig
from robpicker_jax.datasets import SPLITS, dataset
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.datasets.flat_folder import check_layout
from robpicker_jax.datasets.folds import Fold, annotated, assign_folds, link_fold
from robpicker_jax.evaluation.scores import f_beta, none_if_nan
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text
from robpicker_jax.system.progress import console, say

FOLDS, SUMMARY = "folds.json", "cross_validation.json"

Run = Callable[[Config, Path], None]


def cross_validate(config: Config, workdir: Path, count: int, run: Run, *, only: int | None = None) -> None:
    """Run every fold that is not finished, in `WORKDIR/fold_1` …, and summarise them once all are.

    The same command goes on where it was stopped: a fold's run resumes as any run does, and finished ones are passed over.

    Args:
        config: the configuration; all annotated tomograms of its data set take part, whatever split they lie in.
        workdir: the folder.
        count: number of folds.
        run: the main job: (configuration, workdir).
        only: number of the fold to run, from 1, such as one of an array of jobs; None: all.

    Raises:
        InputError: bad data, folds that were divided otherwise before, or whatever a fold's run raises.
    """
    if only is not None and not 1 <= only <= count:
        raise InputError(f"there is no fold {only} of {count}", where="--fold", fix=f"give 1 to {count}")
    parallel.start(config.parallel)
    folds = prepare(config, workdir, count)
    for number, fold in enumerate(folds, start=1):
        if only in (None, number):
            _say(f"\nfold {number} of {count}: tests {', '.join(fold.test)}; meta {', '.join(fold.meta)}")
            run(fold_config(config, workdir, number, fold), fold_dir(workdir, number))
    if parallel.is_first():
        summarise(config, workdir, folds)


def fold_dir(workdir: Path, number: int) -> Path:
    """The folder of a fold's run."""
    return workdir / f"fold_{number}"


def fold_config(config: Config, workdir: Path, number: int, fold: Fold) -> Config:
    """The configuration of a fold's run: of a flat folder, other splits; of other data sets, a folder of links.

    The links say by themselves what each tomogram is for and which lists are its own.
    """
    if config.data.dir is not None and check_layout(Path(config.data.dir), config.data):
        return replace(config, data=replace(config.data, splits=SplitsConfig(fold.train, fold.meta, (), fold.test)))
    folder = str((workdir / f"fold_{number}_data").resolve())
    return replace(config, data=replace(config.data, dir=folder, volumes=None, lists=()))


def prepare(config: Config, workdir: Path, count: int) -> list[Fold]:
    """The folds, as they were divided at the first start, with a folder of links for each.

    Raises:
        InputError: the tomograms or the number of folds have changed since, or the data set cannot be divided.
    """
    folder = run_state.data_folder(config, workdir)
    if is_project(folder):
        raise InputError("the runs of a copick project cannot be linked", where=folder, fix="use a folder of volumes")
    splits = dataset(folder, config.data)
    names = [species.name for species in config.data.species]
    tomograms = annotated([files for split in SPLITS for files in splits[split]], names)
    folds = assign_folds(list(tomograms), count, config.train.seed)
    path = workdir / FOLDS
    stated = {"folds": [{split: list(names) for split, names in asdict(fold).items()} for fold in folds]}
    if path.exists() and read_json_object(path) != stated:
        raise InputError(
            "the folds were divided otherwise",
            where=path,
            fix="give the former data, --folds and train.seed, or another --workdir",
        )
    if parallel.is_first():
        if not path.exists():
            write_text(path, json.dumps(stated, indent=1) + "\n")
        for number, fold in enumerate(() if check_layout(folder, config.data) else folds, start=1):
            link_fold(fold, tomograms, workdir / f"fold_{number}_data", names)
    return folds


def summarise(config: Config, workdir: Path, folds: Sequence[Fold]) -> None:
    """Write and show the summary; say which folds are missing where some are."""
    found = {}
    for number in range(1, len(folds) + 1):
        folder = fold_dir(workdir, number)
        if (folder / "results.json").is_file():
            found[number] = read_json_object(folder / "evaluation.json")
    missing = [str(number) for number in range(1, len(folds) + 1) if number not in found]
    if missing:
        _say(f"folds {', '.join(missing)} are not finished: no summary yet")
        return
    names = [species.name for species in config.data.species]
    content = summary(names, [found[number] for number in sorted(found)])
    write_text(workdir / SUMMARY, json.dumps(content, indent=1) + "\n")
    console.print(_table(content))
    _say(f"summary: {workdir / SUMMARY}")


def summary(names: Sequence[str], evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the folds' evaluations say together.

    Args:
        names: of the species.
        evaluations: contents of the folds' `evaluation.json`.

    Returns:
        `folds`: F1 of each species and their mean (`macro`), fold by fold; `species` and `macro`: mean and standard deviation
        of F1 over folds (with folds − 1 in the denominator), average precision, and for species the counts of all folds
        together with their F1. What is undefined is None.
    """
    by_fold = [{row["name"]: row for row in evaluation["classes"]} for evaluation in evaluations]
    macro = [(evaluation.get("macro") or {}).get("f1") for evaluation in evaluations]
    species = {}
    for name in names:
        rows = [classes[name] for classes in by_fold]
        totals = {key: sum(row[key] for row in rows) for key in ("true", "picked", "true_positives")}
        pooled = f_beta(totals["true_positives"], totals["picked"], totals["true"])
        species[name] = _spread([row["f1"] for row in rows]) | {
            "average_precision": _spread([row["average_precision"] for row in rows])["mean"],
            "pooled": totals | {"f1": none_if_nan(pooled)},
        }
    return {
        "folds": [
            {"macro": whole} | {name: classes[name]["f1"] for name in names}
            for whole, classes in zip(macro, by_fold, strict=True)
        ],
        "species": species,
        "macro": _spread(macro),
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def _table(content: Mapping[str, Any]) -> Table:
    count = len(content["folds"])
    table = Table(title=f"F1 over {count} folds", box=SIMPLE_HEAD, padding=0)
    table.add_column("class", overflow="fold")
    for column in (*(f"  {number}" for number in range(1, count + 1)), "  mean ± sd", "  pooled", "  AP"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in (*content["species"].items(), ("macro", content["macro"])):
        cells = [_text(fold[name]) for fold in content["folds"]]
        pooled = (row.get("pooled") or {}).get("f1")
        table.add_row(
            name,
            *cells,
            f"{_text(row['mean'])} ± {_text(row['sd'])}",
            _text(pooled),
            _text(row.get("average_precision")),
        )
    return table


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _say(text: str) -> None:
    if parallel.is_first():
        say(text)
