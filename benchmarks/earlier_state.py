"""What an earlier state of this package scores on the data of a study, by its own code.

`python -m benchmarks.earlier_state` takes the state 8a4e383, before the loss was changed, and the six species of the study
`loss`: that state's files are taken out of the repository's history, and its own `train` runs in a process of its own on
the study's simulated data, with those of the study's settings that it knows. What it does not know (the name of its loss
among them) is as that state had it. Its picks are scored by today's code, as all picks of the studies are.

It needs a checkout with its history.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from benchmarks._common import Row, machine_row, row, table
from benchmarks.paper.matched import open_annotated
from benchmarks.paper.measure import smaller_half
from benchmarks.paper.runner import data_folder
from benchmarks.paper.study import Run, load_study
from robpicker_jax.annotations import read_annotations
from robpicker_jax.commands.job import evaluate
from robpicker_jax.config import Config, as_plain_values
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

BENCHMARK = "earlier_state"
COMMIT, STUDY, DATA_SET, CASE = "8a4e383", "loss", "six_species", "dice_1"
ROOT = Path(__file__).resolve().parents[1]
_KEYS = """
import dataclasses, json
from robpicker_jax.config import schema
classes = {name: value for name, value in vars(schema).items() if dataclasses.is_dataclass(value)}
print(json.dumps({name: [field.name for field in dataclasses.fields(value)] for name, value in classes.items()}))
"""
_SECTIONS = {
    "data": "DataConfig", "patches": "PatchConfig",
    "model": "ModelConfig", "train": "TrainConfig", "inference": "InferenceConfig", "picking": "PickingConfig",
}  # fmt: skip


def main() -> None:
    """Train and score every seed, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.earlier_state")
    parser.add_argument("--out", type=Path, help="where data and runs are kept; finished seeds are not run again")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds [5]")
    parser.add_argument("--steps", type=int, help="updates [the study's]")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        state = check_out(COMMIT, Path(temporary) / "state")
        rows = [machine_row(BENCHMARK), *scores(state, out.resolve(), options.seeds, options.steps)]
    Console().print(table(rows))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")


def check_out(commit: str, folder: Path) -> Path:
    """The files of a commit in a folder.

    Raises:
        InputError: no repository, or one without that commit.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"no files of the commit {commit}", where=ROOT, fix="use a clone with its whole history")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def scores(state: Path, out: Path, seeds: int, steps: int | None) -> list[Row]:
    """F1 of the test tomograms by species: each seed's macro F1 and small species, and the means."""
    keys = _keys(state)
    by_seed = [_one_seed(state, keys, out, seed, steps) for seed in range(seeds)]
    rows = [
        row(BENCHMARK, f"{COMMIT}, seed {seed}", name, found[name], "F1")
        for seed, found in enumerate(by_seed)
        for name in ("macro", "small species")
    ]
    return rows + [
        row(BENCHMARK, f"{COMMIT}, mean of {seeds}", name, float(np.mean([found[name] for found in by_seed])), "F1")
        for name in by_seed[0]
    ]


def _one_seed(state: Path, keys: Mapping[str, list[str]], out: Path, seed: int, steps: int | None) -> dict[str, float]:
    config = load_study(STUDY, "cpu").config(Run(DATA_SET, CASE, seed))
    if steps is not None:
        config = replace(config, train=replace(config.train, steps=steps, validate_every=steps, checkpoint_every=steps))
    data, folder = data_folder(config, out / "data"), out / f"seed{seed}"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), data)
    config = replace(config, data=replace(config.data, dir=str(data)))
    settings = known_settings(as_plain_values(config), keys)
    write_text(folder / "earlier.yaml", yaml.safe_dump(settings, sort_keys=False))
    _python(
        state, "-m", "robpicker_jax.train", "--config", str(folder / "earlier.yaml"), "--workdir", str(folder / "run")
    )
    return _scored(config, folder / "run" / "picks")


def _scored(config: Config, picks: Path) -> dict[str, float]:
    test = open_annotated(config, "test")
    found = {t.name: read_annotations(picks / f"{t.name}.xml", allow_empty=True) for t in test}
    by_class = {entry.name: float(entry.rates.f1) for entry in evaluate(config, test[0], test, found).classes}
    small = [by_class[name] for name in smaller_half(config.data.species)]
    return {"macro": float(np.mean(list(by_class.values()))), "small species": float(np.mean(small)), **by_class}


def known_settings(settings: Mapping[str, Any], keys: Mapping[str, list[str]]) -> dict[str, Any]:
    """Those of today's settings that an earlier schema has a key for.

    Args:
        settings: sections of plain values.
        keys: of each class of the earlier schema.
    """
    kept = {
        section: {key: value for key, value in settings[section].items() if key in keys[name]}
        for section, name in _SECTIONS.items()
    }
    kept["data"]["species"] = [
        {key: value for key, value in entry.items() if key in keys["Species"]} for entry in settings["data"]["species"]
    ]
    for optimizer in ("inner", "correction", "reweighting"):
        entries = settings["train"][optimizer].items()
        kept["train"][optimizer] = {key: value for key, value in entries if key in keys["OptimizerConfig"]}
    return kept


def _keys(state: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(_python(state, "-c", _KEYS))
    return found


def _python(state: Path, *arguments: str) -> str:
    """What Python prints with the earlier state's package.

    Raises:
        InputError: it failed; with the end of what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(state)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=state, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"the state {COMMIT} failed: {done.stderr[-2000:]}", where=arguments[-1])
    return done.stdout


if __name__ == "__main__":
    main()
