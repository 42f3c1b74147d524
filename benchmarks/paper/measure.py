"""One run of a study: data, training, picks, and the small record `result.json` of what came out."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import peak_memory_mib
from benchmarks.paper import matched as matching
from benchmarks.paper import shrec
from benchmarks.paper.averages import average_metrics
from benchmarks.paper.runner import read_further
from benchmarks.paper.study import JOB, METRICS_VERSION, RESULT, Matched, Places, fingerprint, without_folder
from benchmarks.paper.thresholds import best_thresholds
from robpicker_jax.annotations import Particles
from robpicker_jax.commands import main_job
from robpicker_jax.commands.job import Job, evaluate, evaluate_picks
from robpicker_jax.commands.job_results import calibrate, keep_model, with_thresholds
from robpicker_jax.config import Config, Species, as_plain_values, load_config, validated
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.evaluation import Evaluation
from robpicker_jax.models import n_parameters
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.score_maps import uses_score_maps
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text
from robpicker_jax.training import run_folder
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.trainer import FitResult

_CURVE_POINTS = 30
_END = 0.1  # share of the training over which weights and label masses "at the end" are averaged
Row = Mapping[str, Any]


def carry_out(folder: Path) -> dict[str, Any]:
    """Do the run that `job.yaml` in a folder describes, from wherever it was left, and write `result.json` last.

    Raises:
        InputError: another process is at it, the configuration is impossible, or the training diverged.
    """
    with only_one(folder / ".lock", wait=False):
        config, further = load_config(folder / JOB), read_further(folder)
        matched = validated(Matched, further["matched"], folder) if "matched" in further else None
        with _simulated(config, further.get("places", "random")):
            config = config if matched is None else matching.label(config, matched)
        began = time.monotonic()
        if further.get("corruption") == "measured":
            config = matching.with_measured_corruption(config)
        measured = _trained(config, folder, matched) if _trains(further) else _listed(config, folder, further, matched)
        result = measured | _provenance(folder, further, time.monotonic() - began)
        write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")
        for kept in ("checkpoints", "tensorboard"):  # a study of hundreds of runs would fill the disk with them
            shutil.rmtree(folder / kept, ignore_errors=True)
        return result


@contextmanager
def only_one(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; the system frees it when the process ends, however it ends.

    Args:
        path: the file.
        wait: until another process has freed it.

    Raises:
        InputError: another process holds it, and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("another process is at this run", where=path.parent) from None
        yield


@contextmanager
def _simulated(config: Config, places: Places = "random") -> Iterator[None]:
    """The data set is there, and nobody else is at it."""
    if config.data.dir is None:
        raise InputError("data.dir: a run of a study needs the place of its data")
    folder = Path(config.data.dir)
    with only_one(folder.with_suffix(".lock")):
        simulate_dataset(shrec.recipe(config) if places == "shrec_2019" else _random_places(config), folder)
        yield


def _random_places(config: Config) -> DatasetRecipe:
    return DatasetRecipe(config.data.species, config.simulation, config.label_noise)


def _trains(further: Row) -> bool:
    return bool(further.get("picks", "model") == "model")


def _trained(config: Config, folder: Path, matched: Matched | None) -> dict[str, Any]:
    """Train, pick, and measure."""
    config = main_job.start(config, folder)
    data = main_job.load_data(config, folder)
    # Its step is compiled beforehand in all cases alike, so that neither time nor memory of training has that in it.
    experiment, batches = main_job.plan(config, folder, data, config.parallel.micro_batches, may_wait=False)
    job = Job(experiment.config, folder, data, experiment, main_job.validation_tomograms(data))
    parameters, goes_on = n_parameters(experiment.state.params), run_folder.trained_to(folder) is not None
    began = time.monotonic()
    trained, memory_mib = peak_memory_mib(lambda: main_job.train(job, batches))
    seconds = None if goes_on else time.monotonic() - began  # of a part they would say nothing
    costs = {"training_seconds": seconds, "memory_mib": memory_mib, "parameters": parameters}
    result = _result(job, trained, keep_model(job, trained), matched)
    return result | {"metrics": result["metrics"] | costs}


def _listed(config: Config, folder: Path, further: Row, matched: Matched | None) -> dict[str, Any]:
    """Measure lists that nothing was trained for: the matched ones, or the true ones."""
    assert matched is not None
    assert config.data.dir is not None
    meta, test = (matching.open_annotated(config, split) for split in ("meta", "test"))
    if further["picks"] == "truth":
        lists = strict = candidates = {t.name: t.particles for t in test if t.particles is not None}
    else:
        found = matching.MatchedLists(Path(config.data.dir))
        on_meta = evaluate(config, meta[0], meta, {t.name: found.picks(t) for t in meta})
        lists = {tomogram.name: found.picks(tomogram) for tomogram in test}
        strict = {name: matching.above(each, best_thresholds(on_meta)) for name, each in lists.items()}
        candidates = {tomogram.name: found.candidates(tomogram) for tomogram in test}
    plain, calibrated = (evaluate(config, test[0], test, each) for each in (lists, strict))
    small = smaller_half(config.data.species)
    return {
        "species": [{"name": score.name, "group": score.group} for score in plain.classes],
        "metrics": _scores("plain", plain, small)
        | _scores("calibrated", calibrated, small)
        | average_metrics(config, matched, test, candidates),
        "state": {"chosen_by": config.evaluation.choose_by},
        "curves": {"training": [], "validation": []},
    }


def _result(job: Job, trained: FitResult, picker: ModelPicker, matched: Matched | None) -> dict[str, Any]:
    config, rows = job.config, read_metrics(job.workdir / "metrics.jsonl")
    thresholds = best_thresholds(evaluate_picks(job, picker, job.data.meta))
    if config.picking.thresholds is not None:  # the case's own way to thresholds belongs to how it picks
        calibrate(job, picker)
        picker = with_thresholds(job, picker)
    test: list[OpenedTomogram] = [t for t in job.data.open("test") if t.particles is not None]
    picks, strict = _picked(picker, thresholds, test)
    plain, calibrated = (evaluate(config, job.data, test, each) for each in (picks, strict))
    names = [species.name for species in config.data.species]
    small = smaller_half(config.data.species)
    training = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    metrics = _scores("plain", plain, small) | _scores("calibrated", calibrated, small)
    metrics |= at_the_end(training, names, config.train.main_steps)
    metrics |= {key: _number(value) for key, value in validation[-1].items() if key.startswith("correction/")}
    rate = np.median([row["patches_per_second"] for row in training])
    metrics["seconds_per_update"] = config.train.batch_size / float(rate)
    if matched is not None:
        metrics |= average_metrics(config, matched, test, picks)
    return {
        "species": [{"name": score.name, "group": score.group} for score in plain.classes],
        "metrics": metrics,
        "thresholds": dict(zip(names, thresholds, strict=True)),
        "state": {"chosen_by": config.evaluation.choose_by, "step": trained.best_step, "of": config.train.steps},
        "curves": {
            "training": thinned(training, config.train.steps),
            "validation": [{k: _number(v) for k, v in row.items() if k != "kind"} for row in validation],
        },
    }


def _provenance(folder: Path, further: Row, seconds: float) -> dict[str, Any]:
    """What a result was made from, by what, and how long it took."""
    config, versions = load_config(folder / JOB), run_folder.versions()
    return {
        "fingerprint": fingerprint(config, further),
        "further": further,
        "config": as_plain_values(without_folder(config)),
        "metrics_version": METRICS_VERSION,
        "seconds": seconds,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": versions["machine"],
        "devices": versions["devices"],
        "versions": {name: versions[name] for name in ("robpicker_jax", "python", "jax", "numpy")},
        "commit": _commit(),
    }


def smaller_half(species: Sequence[Species]) -> list[str]:
    """Names of the species of the smaller half by radius: the "small species" of tables and figures."""
    ranked = sorted(species, key=lambda each: each.radius_vox)
    return [each.name for each in ranked[: (len(ranked) + 1) // 2]]


def _picked(
    picker: ModelPicker, thresholds: Sequence[float], test: Sequence[OpenedTomogram]
) -> tuple[dict[str, Particles], dict[str, Particles]]:
    """The picks of the test tomograms, as they are and with the thresholds; segmented once."""
    strict = picker.with_min_scores(thresholds)
    keep_scores = uses_score_maps(picker.model.card.picking.clustering)
    plain: dict[str, Particles] = {}
    calibrated: dict[str, Particles] = {}
    for tomogram in test:
        segmentation = picker.segment(tomogram, keep_scores=keep_scores)
        plain[tomogram.name] = picker.picks_of(segmentation, mask=tomogram.mask)
        calibrated[tomogram.name] = strict.picks_of(segmentation, mask=tomogram.mask)
    return plain, calibrated


def _scores(prefix: str, evaluation: Evaluation, small: Sequence[str]) -> dict[str, float | None]:
    """F1, precision and recall of the macro mean, of the small species, by size group and by species."""
    parts: dict[str, Any] = {"macro": evaluation.macro}
    rates = {score.name: score.rates for score in evaluation.classes}
    found = {f"{prefix}/f1/small species": _number(np.mean([rates[name].f1 for name in small]))}
    parts |= {f"group {group.name}": group.macro for group in evaluation.groups}
    parts |= {score.name: score.rates for score in evaluation.classes}
    for name, rates in parts.items():
        for rate in ("f1", "precision", "recall"):
            found[f"{prefix}/{rate}/{name}"] = _number(getattr(rates, rate))
    areas = [score.average_precision for score in evaluation.classes if score.average_precision is not None]
    found[f"{prefix}/average precision"] = _number(np.mean(areas)) if areas else None
    return found


def at_the_end(rows: Sequence[Row], species: Sequence[str], steps: int) -> dict[str, float | None]:
    """Mean weight of each class's patches, and the label mass that each species gained and lost, over the last steps.

    Fine-tuning comes after them and has neither weights nor corrected labels; its rows are left out.

    Args:
        rows: of training, from metrics.jsonl.
        species: their names.
        steps: of the training before fine-tuning.

    Returns:
        `weight/NAME`, and as shares of the species' label mass `gained/NAME`, `lost/NAME`.
    """
    before = [row for row in rows if row["step"] <= steps]
    last = [row for row in before if row["step"] > (1 - _END) * steps] or before[-1:]
    found: dict[str, float | None] = {}
    for name in species:
        mass = _mean(last, f"label_mass/{name}")
        found[f"weight/{name}"] = _mean(last, f"weight_mean/{name}")
        for kind in ("gained", "lost"):
            amount = _mean(last, f"label_{kind}/{name}")
            found[f"{kind}/{name}"] = amount / mass if mass and amount is not None else None
    return found


def thinned(rows: Sequence[Row], steps: int) -> list[dict[str, Any]]:
    """Rows of training averaged over equal stretches of steps, so that a long training has a short record."""
    edges = np.linspace(0, steps, min(_CURVE_POINTS, len(rows)) + 1)
    found: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        within = [row for row in rows if low < row["step"] <= high]
        if within:
            keys = dict.fromkeys(key for row in within for key in row if key not in ("step", "kind"))
            found.append({"step": float(high), **{key: _mean(within, key) for key in keys}})
    return found


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return _number(np.mean(values)) if values else None


def _number(value: Any) -> float | None:
    """A number for JSON, to six digits; None in place of NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{float(value):.6g}")


def _commit() -> str | None:
    """The commit that the program was run at, "-dirty" behind it where files differ; None without a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None if found.returncode == 0 else None
