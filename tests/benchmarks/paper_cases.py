"""A toy study, and results of runs that never took place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.paper.runner import folder_of
from benchmarks.paper.study import METRICS_VERSION, RESULT, Run, Study, fingerprint, load_study, without_folder
from robpicker_jax.config import as_plain_values
from tests.tiny import TINY

TOY: dict[str, Any] = {
    "title": "A toy",
    "question": "Does it run?",
    "references": ["supervised"],
    "figures": ["species", "differences", "curves", "data_sets"],
    "settings": {"train.meta_warmup_steps": 2},
    "cpu": {"train.steps": 4},
    "data_sets": {
        "few": {"label": "few missing", "settings": {"label_noise.missing": 0.1}},
        "many": {"label": "many missing", "settings": {"label_noise.missing": 0.5, "data.species.0.copies": 4}},
    },
    "cases": {
        "supervised": {"label": "supervised", "settings": {"train.variant": "supervised"}},
        "robpicker": {"label": "RobPicker"},
        "five": {
            "label": "two updates a step",
            "settings": {"train.hypergradient": "none"},
            "cpu": {"train.inner_steps": 2},
        },
    },
    "paper": "it reports nothing of the kind.",
}


def write_studies(folder: Path, **changes: Any) -> Path:
    """A folder with base configurations of both scales and the study `toy`, with some of its entries changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for scale in ("cpu", "full"):
        (folder / f"base_{scale}.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    (folder / "toy.yaml").write_text(yaml.safe_dump(TOY | changes, sort_keys=False), encoding="utf-8")
    return folder


def toy(folder: Path, **changes: Any) -> Study:
    """The toy study on CPU."""
    return load_study("toy", "cpu", write_studies(folder, **changes))


def result_of(study: Study, run: Run, score: float) -> dict[str, Any]:
    """What a run would have written, with one F1 for all species."""
    config = study.config(run)
    names = [species.name for species in config.data.species]
    parts = ["macro", "small species", *names, "group large", "group medium"]
    metrics: dict[str, Any] = {
        f"{kind}/{rate}/{part}": score
        for kind in ("plain", "calibrated")
        for rate in ("f1", "precision", "recall")
        for part in parts
    }
    metrics |= {f"weight/{name}": 1.0 for name in names} | {"correction/recovered": 0.25, "seconds_per_update": 0.5}
    training = [{"step": 2.0 * step, "weight_mean/ribosome": score, "changed_share": 0.1} for step in (1, 2)]
    return {
        "fingerprint": fingerprint(config),
        "config": as_plain_values(without_folder(config)),
        "species": [{"name": name, "group": group} for name, group in zip(names, ("large", "medium"), strict=True)],
        "metrics": metrics,
        "metrics_version": METRICS_VERSION,
        "state": {"chosen_by": "macro_f1", "step": 4, "of": 4},
        "curves": {"training": training, "validation": [{"step": 4, "correction/recovered/ribosome": 0.5}]},
        "seconds": 10.0,
        "finished": f"2020-01-0{run.seed + 1}T00:00:00+00:00",
        "machine": "abacus, 2 cores",
        "devices": ["cpu"],
        "versions": {"python": "3"},
        "commit": None,
    }


def write_result(study: Study, out: Path, run: Run, score: float) -> Path:
    """Put a result where the run would have left it."""
    folder = folder_of(out, study, run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(result_of(study, run, score)), encoding="utf-8")
    return folder
