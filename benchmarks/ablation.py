"""RobPicker with parts left out or swapped: one data set, the same seeds, every variant and every hypergradient method.

Two comparisons, both on one simulated data set with faulty labels, counted in updates of the U-Net:

- variants: both meta networks, one of them, none (`--train.variant`), with the exact hypergradient;
- methods: both meta networks, driven by each hypergradient (`--train.hypergradient`); `none` leaves them as they are
  drawn, and `truncated` takes five updates for each hypergradient.

All runs of a seed start from the same U-Net and see the same patches in the same order, so differences are paired by
seed. Each run is a workdir under `--out`; a finished one is not repeated, and one that was stopped, even killed, goes
on from its last checkpoint. Validation loss is the outer loss on one fixed batch of clean patches of the validation
tomograms; F1 is of picks in whole tomograms, on the test set by the model that was best on the validation set.

Time in the figures is that of the updates alone: the smallest time of a step, all methods timed in turn in one
process, times the number of steps. So neither compilation nor other work on the machine counts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import _common
from benchmarks._ablation_figures import Curves, comparison_figure
from benchmarks._common import Row, row
from robpicker_jax.bilevel.hypergradients import METHODS, find_method
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import META_NETWORKS, Config, load_config
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.evaluation import Evaluation, EvaluationOptions, evaluate
from robpicker_jax.labels import label_maker
from robpicker_jax.patches import BatchSource, PatchTomogram
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.reporting.style import png_bytes, theme
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.compilation import enable_persistent_cache, jit
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, write_text
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.data import TrainingData, device_batches, load_training_data
from robpicker_jax.training.experiment import Experiment, build_experiment
from robpicker_jax.training.export import trained_model
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.trainer import fit

BENCHMARK = "ablation"
EXACT = "unrolled"
INNER_STEPS = {"truncated": 5}
VALIDATION_PATCHES = 16
TIMED_ROUNDS = 7


@dataclass(frozen=True)
class Case:
    """What sets one training apart from the others of its seed."""

    variant: str
    method: str
    inner_steps: int = 1

    @property
    def name(self) -> str:
        """Name of its folders, without the seed."""
        return self.variant if self.variant != "robpicker" else f"{self.variant}-{self.method}"


@dataclass(frozen=True)
class Comparison:
    """Cases to be seen side by side, by their labels, and the one that the others are measured against."""

    name: str
    cases: dict[str, Case]
    reference: str


def comparisons(variants: Sequence[str], methods: Sequence[str]) -> list[Comparison]:
    """The two comparisons; the exact RobPicker run is part of both, and trained once.

    Raises:
        InputError: an unknown variant or method.
    """
    unknown = [name for name in variants if name not in META_NETWORKS]
    if unknown:
        raise InputError(f"unknown variant {unknown[0]!r}", fix=f"choose from {', '.join(META_NETWORKS)}")
    for name in methods:
        find_method(name)
    found = [
        Comparison("variants", {name: Case(name, EXACT) for name in variants}, "supervised"),
        Comparison("methods", {name: Case("robpicker", name, INNER_STEPS.get(name, 1)) for name in methods}, EXACT),
    ]
    return [comparison for comparison in found if comparison.cases]


def configured(base: Config, case: Case, seed: int, data: Path) -> Config:
    """The configuration of one run; `base` counts steps and intervals in updates of the U-Net."""
    train, k = base.train, case.inner_steps

    def outer(updates: int) -> int:
        return max(1, updates // k)

    if train.steps % k:
        raise InputError(f"{train.steps} updates are no multiple of {case.method}'s {k} inner steps")
    return replace(
        base,
        data=replace(base.data, dir=str(data)),
        train=replace(
            train,
            variant=case.variant,  # type: ignore[arg-type]  # checked by `comparisons`
            hypergradient=case.method,
            inner_steps=k,
            seed=seed,
            steps=train.steps // k,
            meta_warmup_steps=train.meta_warmup_steps // k,
            validate_every=outer(train.validate_every),
            checkpoint_every=outer(train.checkpoint_every),
            log_every=outer(train.log_every),
        ),
    )


class Judge:
    """Scores of a model on validation and test tomograms; made once for all runs on a data set."""

    def __init__(self, config: Config, data: TrainingData) -> None:
        options = EvaluationOptions.from_config(
            config.evaluation, config.data.species, voxel_size_angstrom=data.voxel_size_angstrom
        )
        self._options = replace(options, resamples=100)  # of an interval that nobody reads here
        if config.data.meta_labels == "map":
            raise InputError(
                "the study judges by label maps that it makes itself", fix="data.meta_labels: shape or sphere"
            )
        self._maker = label_maker(
            config.data.species, config.data.meta_labels, voxel_size_angstrom=data.voxel_size_angstrom
        )
        self._instances: dict[str, np.ndarray] = {}
        tomograms = {split: data.open(split) for split in ("val", "test")}
        self.validation = tomograms["val"] or data.meta
        self.test = tomograms["test"]
        for tomogram in (*self.validation, *self.test):
            if tomogram.particles is None:
                raise InputError("has no annotations", where=tomogram.name, fix="give all tomograms annotations")
            self._instances[tomogram.name] = self._maker.instances(tomogram.shape_zyx, tomogram.particles)

    def evaluate(self, picker: ModelPicker, tomograms: Sequence[OpenedTomogram]) -> Evaluation:
        """Pick the tomograms and compare with the truth."""
        return evaluate(
            {t.name: t.particles for t in tomograms if t.particles is not None},
            {t.name: picker.pick(t) for t in tomograms},
            self._options,
            instance_maps={t.name: self._instances[t.name] for t in tomograms},
        )

    def batch(self, config: Config) -> Batch:
        """Clean patches of the validation tomograms, class-balanced; the same for every run."""
        patches = []
        for tomogram in self.validation:
            assert tomogram.particles is not None
            labels = self._maker.labels(tomogram.shape_zyx, tomogram.particles)
            patches.append(PatchTomogram(tomogram.name, np.asarray(tomogram), tomogram.particles, labels))
        rows = min(VALIDATION_PATCHES, 4 * config.train.batch_size)
        source = BatchSource(patches, patches, replace(config.patches, augment=()), seed=0, batch_size=rows)
        arrays: dict[str, Any] = source.meta_batch(0)
        return Batch(**arrays)


def train_run(config: Config, workdir: Path, data: TrainingData, judge: Judge) -> None:
    """One run, from wherever it was left; `evaluation.json` is written last."""
    folders.prepare(workdir, config)
    experiment = build_experiment(config)
    loss = _validation_loss(experiment, judge.batch(config))
    names = [species.name for species in config.data.species]

    def validate(state: TrainState) -> Mapping[str, float]:
        scores = judge.evaluate(ModelPicker(trained_model(experiment, state)), judge.validation)
        each = {f"f1/{score.name}": _number(score.rates.f1) for score in scores.classes}
        return {"macro_f1": _number(scores.macro_f1), **each, "outer_loss": loss(state)}

    source = replace(data, train_config=config.train, patches=config.patches).source()
    result = fit(
        experiment, device_batches(source, config.train, experiment.mesh), workdir, validate=validate, class_names=names
    )
    evaluation = judge.evaluate(ModelPicker(trained_model(experiment, result.best)), judge.test)
    stored = {**evaluation.as_dict(), "model_of_step": result.best_step}
    write_text(workdir / "evaluation.json", json.dumps(stored, indent=2) + "\n")
    jax.clear_caches()  # a study is many runs in one process


def _validation_loss(experiment: Experiment, batch: Batch) -> Any:
    outer = experiment.problem.outer_loss
    compiled = jit(lambda params, state, batch: outer(params, state, batch)[0])
    return lambda state: float(compiled(state.params, state.network_state, batch))


class Study:
    """All runs of one study in a folder: `data/`, `N-updates/CASE-seedS/`, `step_times.json`, figures."""

    def __init__(self, base: Config, out: Path, groups: Sequence[Comparison], seeds: int) -> None:
        self.base, self.out, self.groups, self.seeds = base, out, groups, range(seeds)
        self.data = Path(base.data.dir) if base.data.dir is not None else out.resolve() / "data"
        self._times = out / "step_times.json"
        for case in self.cases():
            self.config(case, 0)  # a wrong name is refused before hours of training

    def cases(self) -> list[Case]:
        """Every case once, in the order of the comparisons."""
        return list(dict.fromkeys(case for group in self.groups for case in group.cases.values()))

    def config(self, case: Case, seed: int) -> Config:
        """Configuration of a run."""
        return configured(self.base, case, seed, self.data)

    def workdir(self, case: Case, seed: int) -> Path:
        """Folder of a run."""
        return self.out / f"{self.base.train.steps}-updates" / f"{case.name}-seed{seed}"

    def finished(self, case: Case) -> list[int]:
        """Seeds whose run of a case is finished."""
        return [seed for seed in self.seeds if (self.workdir(case, seed) / "evaluation.json").is_file()]

    def train(self) -> None:
        """Do what is missing: the data, the runs (a comparison's seeds one after the other), the timing."""
        if self.base.data.dir is None:
            base = self.base
            recipe = DatasetRecipe(base.data.species, base.simulation, base.label_noise)
            simulate_dataset(recipe, self.data)
        runs = [(case, seed) for group in self.groups for seed in self.seeds for case in group.cases.values()]
        missing = [run for run in dict.fromkeys(runs) if run[1] not in self.finished(run[0])]
        timed = [case.name for case in self.cases() if case.name not in self.step_seconds()]
        if not missing and not timed:
            return
        enable_persistent_cache()
        data = load_training_data(
            self.data,
            data=self.base.data,
            patches=self.base.patches,
            model=self.base.model,
            train=self.base.train,
            parallel=self.base.parallel,
        )
        judge = Judge(self.base, data) if missing else None
        for number, (case, seed) in enumerate(missing, 1):
            began = time.monotonic()
            assert judge is not None
            train_run(self.config(case, seed), self.workdir(case, seed), data, judge)
            _say(f"run {number} of {len(missing)}: {case.name}, seed {seed}: {time.monotonic() - began:.0f} s")
        if timed:
            times = {**self.step_seconds(), **self._time_steps(data)}
            write_text(self._times, json.dumps(times, indent=1) + "\n")

    def step_seconds(self) -> dict[str, float]:
        """Time of an update of the U-Net by name of the case; empty before they were timed."""
        return json.loads(self._times.read_text(encoding="utf-8")) if self._times.is_file() else {}

    def _time_steps(self, data: TrainingData) -> dict[str, float]:
        best: dict[str, float] = {}
        ready = {}
        for case in self.cases():
            config = self.config(case, 0)
            experiment = build_experiment(config)
            source = replace(data, train_config=config.train, patches=config.patches).source()
            batches = device_batches(source, config.train, experiment.mesh)(0)
            batch = next(batches)
            state, _ = jax.block_until_ready(experiment.step(experiment.state, *batch))
            ready[case] = experiment.step, state, batch
        for _ in range(TIMED_ROUNDS):
            for case, (step, state, batch) in ready.items():
                began = time.perf_counter()
                state, _ = jax.block_until_ready(step(state, *batch))
                elapsed = (time.perf_counter() - began) / case.inner_steps
                best[case.name] = min(best.get(case.name, math.inf), elapsed)
                ready[case] = step, state, batch
        return best

    def curves(self, case: Case) -> Curves:
        """Validation loss and F1 of the finished runs of a case."""
        runs = []
        for seed in self.finished(case):
            rows = read_metrics(self.workdir(case, seed) / "metrics.jsonl")
            runs.append([entry for entry in rows if entry["kind"] == "validation"])
        updates = np.array([entry["step"] * case.inner_steps for entry in runs[0]]) if runs else np.zeros(0)
        return Curves(
            updates=updates,
            seconds_per_update=self.step_seconds().get(case.name),
            loss=np.array([[_nan(entry["outer_loss"]) for entry in run] for run in runs]).reshape(
                len(runs), len(updates)
            ),
            f1=np.array([[_nan(entry["macro_f1"]) for entry in run] for run in runs]).reshape(len(runs), len(updates)),
        )

    def draw(self) -> None:
        """Write a figure for each comparison that has a finished run."""
        for group in self.groups:
            curves = {label: self.curves(case) for label, case in group.cases.items()}
            if any(len(curve.loss) for curve in curves.values()):
                with theme(), atomic_path(self.out / f"ablation_{group.name}.png") as path:
                    path.write_bytes(png_bytes(comparison_figure(curves, reference=group.reference)))

    def rows(self) -> Iterator[Row]:
        """The figures of merit of each case: mean and spread over seeds, and the paired difference to the reference."""
        for group in self.groups:
            scores = {label: self._scores(case) for label, case in group.cases.items()}
            for label, case in group.cases.items():
                name = f"{group.name}: {label}"
                yield row(BENCHMARK, name, "seeds finished", len(self.finished(case)), "")
                for metric, by_seed in scores[label].items():
                    yield from _spread(name, metric, list(by_seed.values()))
                    reference = scores.get(group.reference, {}).get(metric, {})
                    if label != group.reference and reference:
                        differences = [value - reference[seed] for seed, value in by_seed.items() if seed in reference]
                        yield from _spread(name, f"{metric}, minus {group.reference}", differences)
                seconds = self.step_seconds().get(case.name)
                why = "steps are timed after the last run"
                yield row(BENCHMARK, name, "time an update", seconds, "s", why=why)

    def _scores(self, case: Case) -> dict[str, dict[int, float]]:
        """Metric → seed → value."""
        found: dict[str, dict[int, float]] = {"validation loss, last": {}, "validation F1, last": {}, "test F1": {}}
        for seed in self.finished(case):
            workdir = self.workdir(case, seed)
            last = [entry for entry in read_metrics(workdir / "metrics.jsonl") if entry["kind"] == "validation"][-1]
            stored = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))
            found["validation loss, last"][seed] = _nan(last["outer_loss"])
            found["validation F1, last"][seed] = _nan(last["macro_f1"])
            found["test F1"][seed] = _nan(stored["macro"]["f1"])
        return found


def _spread(case: str, metric: str, values: Sequence[float]) -> Iterator[Row]:
    few = "needs a finished run" if not values else "needs two seeds"
    mean = float(np.mean(values)) if values else None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    yield row(BENCHMARK, case, f"{metric}, mean", mean, "", why=few, seeds=len(values))
    yield row(BENCHMARK, case, f"{metric}, standard deviation over seeds", deviation, "", why=few, seeds=len(values))


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{BENCHMARK}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="two updates of three cases, one seed: does it run?")
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of data, runs and figures [runs/ablation]")
    parser.add_argument("--config", metavar="FILE", help="what to train [ablation.yaml beside this file]")
    parser.add_argument("--seeds", metavar="N", type=int, help="seeds 0 … N-1 [3; --quick 1]")
    parser.add_argument("--steps", metavar="N", type=int, help="updates of the U-Net [the configuration's train.steps]")
    parser.add_argument("--variants", metavar="A,B", type=_names, help=f"[{','.join(META_NETWORKS)}]")
    parser.add_argument("--methods", metavar="A,B", type=_names, help=f"[{','.join(METHODS)}]")
    parser.add_argument("--draw-only", action="store_true", help="train nothing; figures and rows of what is finished")
    options = parser.parse_args(arguments)

    base = load_config(options.config or Path(__file__).with_name("ablation.yaml"))
    quick = {"variants": ["supervised"], "methods": ["tangent", "none"], "seeds": 1, "steps": 2}
    full = {"variants": list(META_NETWORKS), "methods": list(METHODS), "seeds": 3, "steps": base.train.steps}
    chosen: dict[str, Any] = {
        key: default if getattr(options, key) is None else getattr(options, key)
        for key, default in (quick if options.quick else full).items()
    }
    base = replace(base, train=replace(base.train, steps=chosen["steps"]))

    def run(quick: bool) -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as scratch:
            out = options.out or (Path(scratch) if quick else Path("runs") / BENCHMARK)
            out.mkdir(parents=True, exist_ok=True)
            groups = comparisons(chosen["variants"], chosen["methods"])
            study = Study(_small(base) if quick else base, out, groups, chosen["seeds"])
            if not options.draw_only:
                study.train()
            study.draw()
            yield from study.rows()

    _common.main(BENCHMARK, run, ["--quick"] * options.quick + (["--json", options.json] if options.json else []))


def _small(base: Config) -> Config:
    """One training and one test tomogram; the meta tomogram serves for validation."""
    simulation = replace(base.simulation, train=1, val=0, test=1)
    return replace(base, simulation=simulation)


if __name__ == "__main__":
    main()
