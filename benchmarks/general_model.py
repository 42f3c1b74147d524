"""The model `general`: trained on a wide mix of simulated tomograms, so that `pick --model general` works without training.

Simulates the mix (`benchmarks._general_data`), trains a small U-Net on it, scores it on held-out simulations of other seeds
and conditions, and writes its file into the package, with a card that says so. Every part goes on where it was stopped:
give the same command again.

    python -m benchmarks.general_model --workdir runs/general [--steps N] [--seed S] [--out FILE] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._common import Row, machine_row, row, table
from benchmarks._general_data import DEFOCI, MIDDLE, SNR, TOLERANCE, VOXEL_SIZES, annotated_species, make
from robpicker_jax.commands import main_job
from robpicker_jax.commands.export import exported
from robpicker_jax.config import Config, config_of
from robpicker_jax.models.model_file import save_model
from robpicker_jax.models.shipped import FOLDER, GENERAL
from robpicker_jax.models.trained_model import TrainedModel
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text
from robpicker_jax.system.progress import progress

NAME = "general_model"
COUNTS = {"train": 24, "meta": 1, "val": 3, "test": 20}
QUICK_COUNTS = {"train": 1, "meta": 1, "val": 1, "test": 1}
QUICK_SHAPE = (48, 96, 96)
STEPS = 2000
MOST_BYTES = 3 * 10**6
"""Largest file that ships with the package."""
_SNR_STEPS = (0.0, 0.06, 0.12, 0.25, 1.0)
"""The held-out tomograms are scored together, and by these steps of their signal-to-noise ratio."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The recipe."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/general"), help="data and run; default: runs/general"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps; default: {STEPS}")
    parser.add_argument("--seed", type=int, default=0, help="of simulation and training")
    parser.add_argument("--out", type=Path, help=f"the model's file; default: that of the package, {GENERAL}.rpk")
    parser.add_argument("--quick", action="store_true", help="a tiny mix and network, written into the workdir")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args(arguments)
    out = options.out or (options.workdir / "general.rpk" if options.quick else FOLDER / f"{GENERAL}.rpk")
    rows = [machine_row(NAME), *recipe(options.workdir, out, options.steps, options.seed, options.quick)]
    Console(markup=False, emoji=False).print(table(rows))
    if options.json is not None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


def recipe(workdir: Path, out: Path, steps: int, seed: int, quick: bool) -> list[Row]:
    """Simulate, train, score and write the file; the scores on the held-out tomograms.

    Args:
        workdir: folder of the data set and the run.
        out: the model's file.
        steps: training steps.
        seed: of simulation and training.
        quick: a tiny mix and a tiny network.

    Raises:
        InputError: a file that would be too large to ship.
    """
    data = workdir / "data"
    counts = QUICK_COUNTS if quick else COUNTS
    with progress("simulating", sum(counts.values())) as bar:
        for _ in make(data, counts, seed, *([QUICK_SHAPE] if quick else [])):
            bar.advance(1)
    config = configuration(data, steps=steps, seed=seed, quick=quick)
    main_job.run(config, workdir / "run")
    model = with_card(exported(workdir / "run", licence="Apache-2.0"), held_out(workdir / "run", data), counts)
    save_model(out, model)
    size = out.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"has {size:,} bytes, more than {MOST_BYTES:,}", where=out, fix="train a smaller network")
    rows = [row(NAME, "file", "size", size, "bytes")]
    provenance = model.card.provenance
    assert provenance is not None
    for score in provenance.test:
        rows += [
            row(NAME, score.name, "F1 on held-out simulations", score.f1, "", why="nothing to find and nothing picked")
        ]
    rows.append(row(NAME, "mean over species", "F1 on held-out simulations", provenance.macro_f1, "", why="no score"))
    for name, f1 in by_snr(workdir / "run", data).items():
        rows.append(row(NAME, name, "F1 of all species together", f1, "", why="no such tomogram"))
    return rows


def configuration(data: Path, *, steps: int, seed: int, quick: bool) -> Config:
    """The training: a small U-Net on right labels, with the average of its parameters."""
    values: dict[str, Any] = {
        "data": {
            "dir": str(data),
            "species": annotated_species(),
            "voxel_size_angstrom": MIDDLE,
            "train_labels": "map",
            "meta_labels": "map",
            "errors": "warn",
        },
        "patches": {
            "size": 48,
            "shift_vox": 14,
            "background_share": 0.2,
            "train_sampler": "class_balanced",
            "augment": ["rotate_180"],
        },
        "model": {
            "preset": "custom",
            "widths": [4, 6] if quick else [12, 24, 48],
            "convs_per_block": 1 if quick else 2,
            "bottleneck_convs": 1,
            "decoder_convs": 1,
        },
        "train": {
            "variant": "supervised",
            "steps": steps,
            "batch_size": 2 if quick else 4,
            "loss_options": {"cross_entropy": 0.02},  # its gradient stays where a species is predicted nowhere
            "seed": seed,
            "inner": {"name": "adam", "learning_rate": 4e-3, "schedule": "cosine", "warmup_steps": min(50, steps // 2)},
            "average_decay": 0.0 if quick else 0.99,
            "validate_every": min(250, steps),
            "checkpoint_every": min(250, steps),
            "log_every": 10,
        },
        "inference": {"tile": 48 if quick else 64, "overlap_vox": 20},
        "picking": {"thresholds": "best"},
    }
    return config_of(values, Path(f"{NAME}.yaml"))


def held_out(workdir: Path, data: Path) -> list[str]:
    """What the card says of the scores by signal-to-noise ratio."""
    scores = by_snr(workdir, data)
    return [f"Held out, {name}: F1 {f1:.2f} of all species together." for name, f1 in scores.items() if f1 is not None]


def by_snr(workdir: Path, data: Path) -> dict[str, float | None]:
    """F1 of the picks of all species together, on the held-out tomograms of each step of signal-to-noise ratio."""
    told = read_json_object(data / "conditions.json")
    rows = read_json_object(workdir / "evaluation.json")["tomograms"]
    found: dict[str, float | None] = {}
    for low, high in pairwise(_SNR_STEPS):
        tomograms = [entry for entry in rows if low <= told[entry["name"]]["snr"] < high]
        here = [counts for entry in tomograms for counts in entry["classes"].values()]
        true, picked, hits = (sum(entry[key] for entry in here) for key in ("true", "picked", "true_positives"))
        name = f"signal-to-noise ratio {low:g} to {high:g}"
        found[name] = None if not here or true + picked == 0 else 2 * hits / (true + picked)
    return found


def with_card(model: TrainedModel, notes: Sequence[str], counts: dict[str, int]) -> TrainedModel:
    """The model with what its users have to know: what it was trained on, and what it has never seen."""
    card, (low, high) = model.card, VOXEL_SIZES
    assert card.provenance is not None
    said = (
        f"Trained on simulated tomograms alone: voxels of {low:g} to {high:g} Å, signal-to-noise ratios of a projection from "
        f"{SNR[0]:g} to {SNR[1]:g}, underfocus from {DEFOCI[0]:g} to {DEFOCI[1]:g} µm, tilts to ±48 … ±66° in steps of 2 … 4°, "
        "with and without phase flipping; ribosomes of 2.5, 3.3 and 4.3 MDa count as one species.",
        "The particles are analytic stand-ins (robpicker_jax.molecules.phantoms), not atomic models.",
        "Never seen: real tomograms, membranes, filaments, cells' interiors, denoised or deconvolved tomograms, "
        "bright particles (set data.invert_contrast for them). Scores on real data will be lower than those on simulations; "
        "fine-tune it on annotated tomograms (train --init-from general).",
    )
    provenance = replace(card.provenance, simulated=True, tomograms=dict(counts), notes=(*said, *notes))
    return replace(model, card=replace(card, voxel_size_tolerance=TOLERANCE, provenance=provenance))


if __name__ == "__main__":
    raise SystemExit(main())
