"""Runs of other variants beside a run, on the same data: what do its meta networks change?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from robpicker_jax import parallel
from robpicker_jax.config import Config
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object
from robpicker_jax.system.progress import console, say

Runs = Sequence[tuple[Path, Config]]


def runs_beside(config: Config, workdir: Path) -> Runs:
    """Folder and configuration of the runs that `train.beside` asks for: `WORKDIR-VARIANT`, alike but for the variant."""
    variants = [variant for variant in config.train.beside if variant != config.train.variant]
    return [
        (workdir.with_name(f"{workdir.name}-{variant}"), replace(config, train=replace(config.train, variant=variant)))
        for variant in variants
    ]


def announce(config: Config, workdir: Path) -> None:
    """Say which run comes next, and where."""
    if parallel.is_first():
        say(f"\nbeside it: {config.train.variant}, in {workdir}")


def compare(config: Config, workdir: Path, others: Runs) -> None:
    """Show F1 of a finished run and of those beside it, species by species; nothing where the test set is not annotated."""
    if not parallel.is_first():
        return
    named = [(config.train.variant, workdir), *((other.train.variant, folder) for folder, other in others)]
    columns = {variant: _scores(folder) for variant, folder in named}
    rows = [name for name in columns[config.train.variant] if name != "macro"]
    if not rows:
        return
    table = Table(title="F1 on the test set", box=SIMPLE_HEAD, padding=0)
    table.add_column("class", overflow="fold")
    for variant in columns:
        table.add_column(f"  {variant}", justify="right", no_wrap=True)
    for name in [*rows, "macro"]:
        label = "macro (mean)" if name == "macro" else name
        table.add_row(label, *("–" if (f1 := found.get(name)) is None else f"{f1:.3f}" for found in columns.values()))
    console.print(table)
    say(f"report: {workdir / 'report' / 'index.html'}")


def _scores(workdir: Path) -> dict[str, float | None]:
    """F1 of each species, and their mean as "macro"; empty where there is no evaluation."""
    try:
        found = read_json_object(workdir / "evaluation.json")
    except InputError:
        return {}
    classes: Sequence[dict[str, Any]] = found.get("classes") or ()
    scores = {str(score["name"]): score["f1"] for score in classes}
    return scores | {"macro": (found.get("macro") or {}).get("f1")}
