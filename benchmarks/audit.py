"""How well `audit` finds planted annotation faults: average precision by kind of fault, beside chance.

A model is trained on a simulated data set with faulty labels. Then further data sets are simulated with other seeds and
the same kinds of faults, and audited; their truth is known. Chance is the average precision of a random order: the share
of the annotations with that fault.

Missing particles are to be found, not told apart from others: their average precision is that of a detection. It counts a
particle that is no candidate as never found, and a second candidate for the same particle as wrong. Chance is what naming
random places gives, of those where nothing is annotated within the species' radius: the share of them that lie within the
radius of a missing particle. The training tomograms are audited too: the network has seen their faulty labels.

`--workdir RUN` audits with a run that there is, on data simulated like its own. Without, a small one is trained.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.metrics import average_precision_score

from benchmarks._common import Row, machine_row, row, table
from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.auditing import KINDS
from robpicker_jax.auditing.evidence import radii_of
from robpicker_jax.auditing.examine import Auditor
from robpicker_jax.auditing.opinion import label_change
from robpicker_jax.commands import main_job, run_state
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets import TomogramFiles, discover, open_tomogram
from robpicker_jax.picking.picker import model_picker
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.files import write_text
from robpicker_jax.training.corrector import Corrector, load_corrector
from robpicker_jax.training.run_folder import read_config

BENCHMARK = "audit"
FIRST_SEED = 2000  # of the held-out data; training data have small seeds
NOISE = (
    "label_noise.preset=none",
    "label_noise.missing=0.25",
    "label_noise.crowded_missing=0.25",
    "label_noise.false_picks=0.15",
    "label_noise.swap=0.1",
    "label_noise.jitter_vox=1.0",
    "label_noise.jitter_z_vox=1.5",
)
QUICK = (
    "simulation.shape_zyx=[48,96,96]",
    "simulation.train=2",
    "simulation.val=0",
    "data.species.0.copies=5",
    "data.species.1.copies=8",
    "data.species.2.copies=10",
    "model.widths=[8,16]",
    "train.variant=supervised",
    "train.steps=120",
    "train.validate_every=60",
    "train.checkpoint_every=60",
)
ANY = "any fault"
CORRECTION = "false or wrong class, by the label correction"
RANDOM_PLACES = 100_000  # in each tomogram, to count how many lie at a missing particle


def planted(
    truth: Particles, record: dict[str, Any], noisy: Particles, radii_vox: Sequence[float], share: float
) -> Any:
    """The fault of each annotation: its kind, or "" where it is right; (n,) text.

    Args:
        truth: the true particles.
        record: what the label noise did (`{name}_label_noise.json`).
        noisy: the n annotations.
        radii_vox: radius of each species, voxels.
        share: displacement, as a share of the radius, from which an annotation counts as displaced.
    """
    kept, swapped = record["kept"], {entry["index"] for entry in record["swapped"]}
    faults = np.full(len(noisy), "false", object)
    off = np.linalg.norm(noisy.positions_vox[: len(kept)] - truth.positions_vox[kept], axis=1)
    far = off > share * radii_of(truth, radii_vox)[kept]
    for place, index in enumerate(kept):
        faults[place] = "wrong_class" if index in swapped else "displaced" if far[place] else ""
    return faults.astype(str)


def first_hits(found: Particles, lost: Particles, radii_vox: Sequence[float]) -> Any:
    """Which candidates, taken by falling score, find a missing particle that none before them has found; bool (n,).

    Args:
        found: n candidates by falling score.
        lost: the missing particles.
        radii_vox: radius of each species, voxels: a candidate finds the nearest particle within whose radius it lies.
    """
    apart = np.linalg.norm(found.positions_vox[:, None] - lost.positions_vox[None], axis=2) / radii_of(lost, radii_vox)
    hits = np.zeros(len(found), bool)
    for index in range(len(found)):
        if len(lost) and apart[index].min() <= 1:
            hits[index] = True
            apart[:, apart[index].argmin()] = np.inf
    return hits


def detection_precision(hits: Sequence[bool], scores: Sequence[float], wanted: int) -> float:
    """Average precision of a detection: the sum of the precision at each hit, divided by all that could be found.

    Args:
        hits: of each candidate, whether it finds something new.
        scores: of each candidate.
        wanted: number of things to find.
    """
    ordered = np.asarray(hits, bool)[np.argsort(-np.asarray(scores, float), kind="stable")]
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    return float(precision[ordered].sum() / wanted)


def random_hits(
    shape_zyx: Sequence[int], listed: Particles, lost: Particles, radii_vox: Sequence[float], rng: np.random.Generator
) -> tuple[int, int]:
    """Of random places without an annotation: how many lie within the radius of a missing particle, and how many there are."""
    places = rng.uniform(0, np.array(shape_zyx[::-1]) - 1, (RANDOM_PLACES, 3))

    def near(particles: Particles) -> Any:
        inside = np.zeros(len(places), bool)
        for position, radius in zip(particles.positions_vox, radii_of(particles, radii_vox), strict=True):
            inside |= np.sum((places - position) ** 2, axis=1) <= radius**2
        return inside

    free = ~near(listed)
    return int(np.sum(near(lost) & free)), int(free.sum())


def rows_of(
    case: str, tomograms: Sequence[TomogramFiles], auditor: Auditor, corrector: Corrector | None
) -> Iterator[Row]:
    """Average precision and chance of each kind, over all tomograms together."""
    radii, share = auditor.radii_vox, auditor.tolerated_share
    truths: dict[str, list[bool]] = {name: [] for name in (*KINDS, ANY, CORRECTION)}
    scores: dict[str, list[float]] = {name: [] for name in truths}
    dropped = at_missing = places = 0
    rng = np.random.default_rng(0)
    for files in tomograms:
        with open_tomogram(files, auditor.picker.data) as tomogram:
            noisy = tomogram.particles
            assert noisy is not None
            found = auditor.examine(tomogram, noisy, files.name)
            folder = files.volume_path.parent
            truth = read_annotations(folder / f"{files.name}_truth_objl.xml")
            record = json.loads((folder / f"{files.name}_label_noise.json").read_text(encoding="utf-8"))
            listed = found.select(found.extra["row"] > 0)
            faults = planted(truth, record, noisy, radii, share)[listed.extra["row"] - 1]
            assert listed.scores is not None
            for kind in KINDS[:3]:  # under the one kind that a user finds it listed under
                truths[kind] += (faults == kind).tolist()
                scores[kind] += np.where(listed.extra["kind"] == kind, listed.scores, 0).tolist()
            truths[ANY] += (faults != "").tolist()
            scores[ANY] += listed.scores.tolist()
            missing = found.select(found.extra["kind"] == "missing")
            assert missing.scores is not None
            lost = truth.select([entry["index"] for entry in record["dropped"]])
            truths["missing"] += first_hits(missing, lost, radii).tolist()
            scores["missing"] += missing.scores.tolist()
            near, free = random_hits(tomogram.shape_zyx, noisy, lost, radii, rng)
            dropped, at_missing, places = dropped + len(lost), at_missing + near, places + free
            if corrector is not None:
                change = label_change(corrector, tomogram, noisy, listed, radii, corrector.config.patches.size)
                truths[CORRECTION] += np.isin(faults, ["false", "wrong_class"]).tolist()
                scores[CORRECTION] += (-change).tolist()
    for name, wanted in truths.items():
        if name == CORRECTION and corrector is None:
            continue
        if not any(wanted):
            yield row(BENCHMARK, case, f"{name}: average precision", None, "", why="no such fault in the data")
            continue
        if name == "missing":
            precision, chance = detection_precision(wanted, scores[name], dropped), at_missing / places
            yield row(BENCHMARK, case, "missing: candidates that are missing", float(np.mean(wanted)), "")
            yield row(BENCHMARK, case, "missing: share of them found", sum(wanted) / dropped, "", of=dropped)
        else:
            precision, chance = float(average_precision_score(wanted, scores[name])), float(np.mean(wanted))
        yield row(BENCHMARK, case, f"{name}: average precision", precision, "", of=len(wanted))
        yield row(BENCHMARK, case, f"{name}: chance", chance, "")


def run(workdir: Path, config: Config, scratch: Path, seeds: int) -> Iterator[Row]:
    """Audit held-out data sets, one a seed, and the training tomograms."""
    auditor, corrector = Auditor(model_picker(workdir)), load_corrector(workdir)
    simulation = replace(config.simulation, meta=0, val=0, test=0)
    figures: dict[str, list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        recipe = DatasetRecipe(
            config.data.species, replace(simulation, seed=seed), replace(config.label_noise, seed=seed)
        )
        simulate_dataset(recipe, scratch / f"seed-{seed}")
        held_out = discover(scratch / f"seed-{seed}")["train"]
        for item in rows_of(f"held out, seed {seed}", held_out, auditor, corrector):
            if item["value"] is not None:
                figures.setdefault(item["metric"], []).append(item["value"])
            yield item
    for metric, values in figures.items():
        yield row(BENCHMARK, "held out, mean over seeds", metric, float(np.mean(values)), "", seeds=len(values))
    own = run_state.data_folder(config, workdir)
    if not all((own / "train" / f"{files.name}_label_noise.json").is_file() for files in discover(own)["train"]):
        yield row(BENCHMARK, "training tomograms", ANY, None, "", why="the run was not trained on simulated data")
        return
    yield from rows_of("training tomograms", discover(own)["train"], auditor, corrector)


def main(arguments: list[str] | None = None) -> None:
    """Parse, train where no run is given, audit, print the table and write the rows."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{BENCHMARK}", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model and one seed; about a minute on two cores")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows as JSON")
    parser.add_argument("--workdir", metavar="DIR", type=Path, help="a run to audit with, in place of a new one")
    parser.add_argument("--seeds", metavar="N", type=int, help="held-out data sets; default: 3, with --quick 1")
    options = parser.parse_args(arguments)
    enable_persistent_cache()
    rows = [machine_row(BENCHMARK)]
    with tempfile.TemporaryDirectory() as folder:
        workdir = options.workdir
        if workdir is None:
            workdir = Path(folder) / "run"
            main_job.run(load_config(None, [*NOISE, *(QUICK if options.quick else ())]), workdir)
        seeds = options.seeds or (1 if options.quick else 3)
        rows += run(workdir, read_config(workdir), Path(folder), seeds)
    Console(markup=False, emoji=False).print(table(rows))
    if options.json is not None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
