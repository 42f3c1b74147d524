"""The built-in example over several seeds: are labels repaired, are small species weighted up, are particles found?

The seed is that of training; the simulated data are the same in all runs, those that a user of the example gets. Each run
goes on where it was stopped: give the same command again.

    python -m benchmarks.quickstart [--seeds 3] [--workdir runs/quickstart_seeds] [--quick] [--json FILE]

Labels are judged at the last step, on training patches whose true labels the simulation kept. The ratio of the weights is
that of the mean weights of the smallest and the largest species over the last tenth of the steps. Times of a step are
medians over a run's records; what a run takes beside its steps is compilation, validation, picking and the report.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks._common import Row, machine_row, row, table
from robpicker_jax.commands import main_job
from robpicker_jax.config import Config, load_config
from robpicker_jax.system.files import write_text
from robpicker_jax.training.metrics_log import read_metrics

NAME = "quickstart"
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
LABELS = {
    "correction/recovered": "voxels of missing particles recovered",
    "correction/added": "background that got a label",
    "correction/error_change": "change of the label error",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """All runs, and the table."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/quickstart_seeds"), help="default: runs/quickstart_seeds"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, twelve steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args(arguments)
    rows = [machine_row(NAME)]
    runs = []
    for seed in range(1 if options.quick else options.seeds):
        config, workdir = configuration(seed, quick=options.quick), options.workdir / str(seed)
        main_job.run(config, workdir)
        runs.append(figures(config, workdir))
        rows += [row(NAME, f"seed {seed}", metric, value, "") for metric, value in runs[-1].items()]
        rows += [row(NAME, f"seed {seed}", *entry, why="no such step") for entry in step_times(config, workdir)]
    rows += over_seeds(runs)
    Console(markup=False, emoji=False).print(table(rows))
    if options.json is not None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


def configuration(seed: int, *, quick: bool) -> Config:
    """The shipped configuration with another seed of training, without the second training beside it."""
    config = load_config(CONFIG)
    train = replace(config.train, seed=seed, beside=())
    if quick:
        train = replace(train, steps=12, meta_warmup_steps=4, validate_every=6, checkpoint_every=6)
    return replace(config, train=train)


def figures(config: Config, workdir: Path) -> dict[str, float]:
    """What is asked of the example, from a finished run's records."""
    metrics = read_metrics(workdir / "metrics.jsonl")
    last = [entry for entry in metrics if entry["kind"] == "validation"][-1]
    evaluation = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))
    return {
        **{metric: float(last[name]) for name, metric in LABELS.items()},
        "weight of the smallest over the largest species": weight_ratio(config, metrics),
        "macro F1 on the test tomogram": float(evaluation["macro"]["f1"]),
    }


def step_times(config: Config, workdir: Path) -> Iterator[tuple[str, float | None, str]]:
    """What a step takes in the two phases of a training, and all of them together: name, time and unit."""
    rows = [entry for entry in read_metrics(workdir / "metrics.jsonl") if entry["kind"] == "train"]
    steps = np.array([entry["step"] for entry in rows])
    rates = [entry.get("patches_per_second") or np.nan for entry in rows]
    seconds = config.train.batch_size * config.train.inner_steps / np.array(rates, dtype=np.float64)
    warm = steps <= config.train.n_meta_warmup_steps
    for name, chosen in (("a step of the warm-up", warm), ("a bi-level step", ~warm)):
        known = seconds[chosen & np.isfinite(seconds)]
        yield name, float(np.median(known)) if known.size else None, "s"
    yield "all steps", float(np.nansum(seconds * np.diff(steps, prepend=0))), "s"


def weight_ratio(config: Config, metrics: list[dict[str, Any]]) -> float:
    """Mean weight of patches of the smallest species over that of the largest, in the last tenth of the steps.

    One row of the metrics is one batch, which holds few patches of each species: many have to be taken together.
    """
    species = sorted(config.data.species, key=lambda entry: entry.radius_vox)
    late = [entry for entry in metrics if entry["kind"] == "train" and entry["step"] > 0.9 * config.train.steps]

    def mean(name: str) -> float:
        found = [entry.get(f"weight_mean/{name}") for entry in late]
        present = [value for value in found if value is not None]
        return float(np.mean(present)) if present else float("nan")

    return mean(species[0].name) / mean(species[-1].name)


def over_seeds(runs: list[dict[str, float]]) -> Iterator[Row]:
    """Mean, smallest and largest of each figure."""
    for metric in runs[0]:
        values = [run[metric] for run in runs]
        for name, value in (("mean", np.mean(values)), ("smallest", min(values)), ("largest", max(values))):
            yield row(NAME, f"{len(runs)} seeds", f"{metric}, {name}", float(value), "")


if __name__ == "__main__":
    raise SystemExit(main())
