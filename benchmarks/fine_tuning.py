"""Fine-tuning the model `general` against training from scratch, with one annotated tomogram: F1 against steps.

For each seed, one tomogram is simulated to train on and two to be scored on, of a kind that the general model was not
trained on in particular. The same network is trained from random parameters, and from those of the model, both
by the settings of `train` and of `train --init-from` (a third of the steps; 0.3 of the learning rate, or all of it where
the model lacks a species). Two sets of species: shapes that the model was trained on, and others. Scores are the mean F1
over the species.

    python -m benchmarks.fine_tuning [--model general] [--workdir runs/fine_tuning] [--seeds 3] [--steps 300] [--json FILE]

The last rows of each set are the steps after which the mean over the seeds first reaches the last score from scratch.
Every training goes on where it was stopped: give the same command again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks._common import Row, machine_row, row, table
from robpicker_jax.commands import main_job
from robpicker_jax.config import Config, LabelNoiseConfig, SimulationConfig, Species, config_of
from robpicker_jax.models.shipped import GENERAL, find_model
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.molecules import PHANTOMS
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.files import write_text
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.starting import shorter

NAME = "fine_tuning"
SETS = {
    "shapes of the model's training": {"ribosome": 8, "proteasome": 12, "apoferritin": 18},
    "other shapes": {"thyroglobulin": 16, "atp_synthase": 16, "beta_galactosidase": 20},
}
"""Copies of each species in a tomogram."""
VOXEL_SIZE = 11.0
SHAPE = (64, 128, 128)
QUICK_SHAPE = (48, 96, 96)
VALIDATIONS = 12
"""Validations of a training from scratch; one that is fine-tuned has a third of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """All trainings, and the table."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.add_argument("--model", default=GENERAL, help="a model's file, a run, or a shipped model; default: general")
    parser.add_argument("--workdir", type=Path, default=Path("runs/fine_tuning"), help="default: runs/fine_tuning")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--steps", type=int, default=300, help="steps of a training from scratch; default: 300")
    parser.add_argument("--quick", action="store_true", help="one set, one seed, twelve steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args(arguments)
    model = find_model(options.model)
    card = load_trained_model(model).card
    rows = [machine_row(NAME)]
    seeds, steps = (1, VALIDATIONS) if options.quick else (options.seeds, options.steps)
    for name, copies in list(SETS.items())[: 1 if options.quick else None]:
        curves: dict[str, list[dict[int, float]]] = {"from scratch": [], "fine-tuned": []}
        for seed in range(seeds):
            folder = options.workdir / f"{name.replace(' ', '_').replace(chr(39), '')}_{seed}"
            data = simulated(folder / "data", copies, seed, QUICK_SHAPE if options.quick else SHAPE)
            scratch = configuration(data, copies, card, steps=steps, seed=seed)
            curves["from scratch"].append(trained(scratch, folder / "scratch"))
            tuned = configuration(data, copies, card, steps=steps, seed=seed, model=model)
            curves["fine-tuned"].append(trained(tuned, folder / "tuned"))
        rows += compared(name, curves)
    Console(markup=False, emoji=False).print(table(rows))
    if options.json is not None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


def simulated(folder: Path, copies: dict[str, int], seed: int, shape_zyx: tuple[int, int, int]) -> Path:
    """A data set of one tomogram to train on and two that are scored; made once."""
    species = tuple(
        Species(name, PHANTOMS[name].radius_angstrom / VOXEL_SIZE, phantom=name, copies=count)
        for name, count in copies.items()
    )
    small = tuple(count if shape_zyx == SHAPE else max(1, count // 4) for count in copies.values())
    species = tuple(Species(**asdict(entry) | {"copies": count}) for entry, count in zip(species, small, strict=True))
    simulation = SimulationConfig(
        shape_zyx=shape_zyx,
        voxel_size_angstrom=VOXEL_SIZE,
        train=1,
        meta=0,
        val=2,
        test=1,
        snr=0.15,
        defocus_um=3.5,
        seed=1000 + seed,
    )
    simulate_dataset(DatasetRecipe(species, simulation, LabelNoiseConfig()), folder)
    meta = folder / "meta"  # the one annotated tomogram serves as the clean one, too
    meta.mkdir(exist_ok=True)
    for suffix in (".mrc", "_objl.xml", "_target.mrc"):
        if not (meta / f"meta_000{suffix}").exists():
            copyfile(folder / "train" / f"train_000{suffix}", meta / f"meta_000{suffix}")
    return folder


def configuration(
    data: Path, copies: dict[str, int], card: ModelCard, *, steps: int, seed: int, model: Path | None = None
) -> Config:
    """A training of the model's network, from its parameters where it is given."""
    network = asdict(card.model)
    values: dict[str, Any] = {
        "data": {
            "dir": str(data),
            "species": [
                {"name": name, "radius_vox": round(PHANTOMS[name].radius_angstrom / VOXEL_SIZE, 2)} for name in copies
            ],
            "meta_labels": "sphere",
            "errors": "warn",
        },
        "patches": {"size": 48, "shift_vox": 14},
        "model": network,
        "train": {
            "variant": "supervised",
            "steps": steps,
            "batch_size": 4,
            "seed": seed,
            "inner": {"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup_steps": min(10, steps // 3)},
            "validate_every": max(1, steps // VALIDATIONS),
            "checkpoint_every": max(1, steps // VALIDATIONS),
        },
        "inference": {"tile": card.inference.tile, "overlap_vox": card.inference.overlap_vox},
    }
    if model is not None:
        knows = set(copies) <= set(card.class_names)
        for key, value in shorter(config_of(values, Path(f"{NAME}.yaml")).train, knows_species=knows).items():
            section = values["train"] if key.count(".") == 1 else values["train"]["inner"]
            section[key.rpartition(".")[2]] = value
        values["train"]["init_from"] = str(model)
    return config_of(values, Path(f"{NAME}.yaml"))


def trained(config: Config, workdir: Path) -> dict[int, float]:
    """Do a training, or what is left of it: the mean F1 on the scored tomograms by step."""
    main_job.run(config, workdir)
    rows = read_metrics(workdir / "metrics.jsonl")
    return {entry["step"]: entry["macro_f1"] or 0.0 for entry in rows if entry["kind"] == "validation"}


def compared(name: str, curves: dict[str, list[dict[int, float]]]) -> Iterator[Row]:
    """The rows of one set of species: means over the seeds, and the steps to the last score from scratch."""
    means = {}
    for way, runs in curves.items():
        means[way] = {step: float(np.mean([run[step] for run in runs])) for step in runs[0]}
        for step, f1 in means[way].items():
            spread = float(np.std([run[step] for run in runs]))
            yield row(NAME, name, f"{way}, F1 after {step} steps", f1, "", spread=spread, seeds=len(runs))
    wanted = means["from scratch"][max(means["from scratch"])]
    for way, curve in means.items():
        reached = min((step for step, f1 in curve.items() if f1 >= wanted), default=None)
        metric = f"{way}, steps to F1 {wanted:.3f}"
        yield row(NAME, name, metric, reached, "steps", why=f"not reached after {max(curve)} steps")


if __name__ == "__main__":
    raise SystemExit(main())
