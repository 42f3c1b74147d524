"""The main job, end to end: data, training, picking of the test tomograms, evaluation, report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import Config
from robpicker_jax.datasets import SPLITS, OpenedTomogram
from robpicker_jax.labels import label_maker
from robpicker_jax.picking.picker import Picker, write_picks
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.files import write_text
from robpicker_jax.system.progress import clock, console, progress
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.checkpoint import Checkpoints
from robpicker_jax.training.data import TrainingData, load_training_data
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.plan import prepare
from robpicker_jax.training.trainer import fit

if TYPE_CHECKING:
    from robpicker_jax.evaluation import Evaluation
    from robpicker_jax.reporting.gathering import TrainingExamples

# What is wanted after training alone is imported then: nobody waits for it at the start.


def run(config: Config, workdir: Path) -> None:
    """Do the whole job, going on from wherever an earlier run of the same command stopped.

    Raises:
        InputError: bad data or configuration, another run in the folder, or a training that diverged.
    """
    parallel.start(config.parallel)
    configured = config.parallel.micro_batches
    config = folders.as_planned(workdir, config)
    if parallel.is_first():
        folders.prepare(workdir, config)
    else:
        console.quiet = True
    enable_persistent_cache()
    if finished(config, workdir):
        stored = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))
        score = stored["macro"]["f1"]
        scored = "" if score is None else f", macro F1 {score:.3f} on the test set"
        _say(f"{workdir}: this run is finished ({config.train.steps} steps{scored}); nothing to do")
        _say(f"report: {workdir / 'report' / 'index.html'}")
        return
    directory = data_folder(config, workdir)
    data = load_training_data(config, directory, scalings=_scalings(workdir))
    _say(f"{_counts(data)}; training in {workdir}")
    experiment = build_experiment(config)
    batches = data.batches(experiment.mesh)
    experiment, plan = prepare(experiment, configured=configured, resident_bytes=data.resident_bytes)
    config = experiment.config
    if parallel.is_first():
        folders.record_plan(workdir, config, plan.record())
    for line in plan.lines():
        _say(line)
    names = [species.name for species in config.data.species]
    validation = data.open("val") or data.meta
    validation = [tomogram for tomogram in validation if tomogram.particles is not None]

    def validate(state: TrainState) -> Mapping[str, float]:
        from robpicker_jax.evaluation.validation import validation_scores

        picker = Picker(experiment, state)
        scores = _evaluate(config, data, validation, {t.name: picker.pick(t, mask=t.mask) for t in validation})
        return validation_scores(scores, config.evaluation.choose_by)

    result = fit(
        experiment,
        batches,
        workdir,
        validate=validate,
        choose_by=config.evaluation.choose_by,
        class_names=names,
        on_pace=_say_pace,
    )
    if result.input_wait_share is not None:
        _say(f"the devices waited for input {100 * result.input_wait_share:.1f} % of the time")
    if not parallel.is_first():
        return  # process 0 alone picks, evaluates and reports
    from robpicker_jax.evaluation import evaluation_table
    from robpicker_jax.picking import calibration
    from robpicker_jax.reporting.gathering import write_run_report

    picker = Picker(experiment, parallel.local(result.best))
    # On the meta tomograms (and those of validation, where there are any): clean, and not the test set's.
    known = {tomogram.name for tomogram in data.meta}
    clean = data.meta + [tomogram for tomogram in validation if tomogram.name not in known]
    on_clean = _evaluate(config, data, clean, {t.name: picker.pick(t, mask=t.mask) for t in clean})
    calibration.save(workdir, calibration.calibrate(on_clean), [tomogram.name for tomogram in clean])
    test = data.open("test")
    picks = pick_all(picker, test, workdir / "picks")
    judged = [tomogram for tomogram in test if tomogram.particles is not None]
    evaluation = None
    if judged:
        evaluation = _evaluate(config, data, judged, {t.name: picks[t.name] for t in judged})
        table = evaluation_table(evaluation, title=f"Test set, model of step {result.best_step}")
        console.print(table)
        write_text(workdir / "evaluation.json", json.dumps(evaluation.as_dict(), indent=2) + "\n")
    else:
        _say("no test tomogram has annotations: nothing to evaluate")
        write_text(workdir / "evaluation.json", json.dumps({"macro": {"f1": None}}) + "\n")
    comparable = [sibling for sibling, _ in folders.siblings(workdir, config)]
    page = write_run_report(
        workdir,
        config.data,
        _training_examples(picker, data),
        test,
        picks,
        evaluation,
        variant=config.train.variant,
        machine=folders.machine(),
        comparable=comparable,
    )
    for sibling in comparable:
        if (sibling / "report" / "index.html").exists():
            _say(f"compared with {sibling} in the report")
    _say(f"picks: {workdir / 'picks'}\nreport: {page}")


def finished(config: Config, workdir: Path) -> bool:
    """Whether the run is trained to its last step, evaluated and reported."""
    if not ((workdir / "evaluation.json").exists() and (workdir / "report" / "index.html").exists()):
        return False
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        return (checkpoints.latest_step() or 0) >= config.train.steps
    finally:
        checkpoints.close()


def data_folder(config: Config, workdir: Path) -> Path:
    """The data set: `data.dir`, or one simulated in the workdir (or by a sibling run with the same settings).

    Of several processes the first one simulates, and the others wait for it.
    """
    if config.data.dir is not None:
        return Path(config.data.dir)
    from robpicker_jax.simulation import DatasetRecipe, is_finished, simulate_dataset

    recipe = DatasetRecipe(config.data.species, config.simulation, config.label_noise)
    own = workdir / "data"
    while not parallel.is_first() and not is_finished(recipe, own):
        if any(is_finished(recipe, sibling / "data") for sibling, _ in folders.siblings(workdir, config)):
            break
        time.sleep(1.0)
    for folder in (own, *(sibling / "data" for sibling, _ in folders.siblings(workdir, config))):
        if is_finished(recipe, folder):
            return folder
    with progress("simulating", recipe.count()) as bar:
        simulate_dataset(recipe, own, bar)
    return own


def pick_all(picker: Picker, tomograms: list[OpenedTomogram], folder: Path) -> dict[str, Particles]:
    """Pick every tomogram and write its picks."""
    picks = {}
    total = sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)
    with progress("picking", total) as bar:
        for tomogram in tomograms:
            picks[tomogram.name] = picker.pick(tomogram, bar.advance, mask=tomogram.mask)
            write_picks(
                folder,
                tomogram.name,
                picks[tomogram.name],
                voxel_size_angstrom=tomogram.voxel_size_angstrom,
                shape_zyx=tomogram.shape_zyx,
            )
    return picks


def _evaluate(
    config: Config, data: TrainingData, tomograms: list[OpenedTomogram], picks: Mapping[str, Particles]
) -> Evaluation:
    from robpicker_jax.evaluation import EvaluationOptions, evaluate

    truth = {tomogram.name: _particles(tomogram) for tomogram in tomograms}
    instances: dict[str, np.ndarray] | None = None
    if config.evaluation.rule == "mask" and config.data.meta_labels == "shape":
        maker = label_maker(config.data.species, "shape", voxel_size_angstrom=data.voxel_size_angstrom)
        instances = {t.name: maker.instances(t.shape_zyx, _particles(t)) for t in tomograms}
    options = EvaluationOptions.from_config(
        config.evaluation, config.data.species, voxel_size_angstrom=data.voxel_size_angstrom
    )
    masks = {tomogram.name: tomogram.mask for tomogram in tomograms if tomogram.mask is not None}
    return evaluate(truth, picks, options, instance_maps=instances, regions=masks or None)


def _particles(tomogram: OpenedTomogram) -> Particles:
    assert tomogram.particles is not None
    return tomogram.particles


def _training_examples(picker: Picker, data: TrainingData) -> TrainingExamples:
    """Training patches and what the trained meta networks make of them, for the report."""
    from robpicker_jax.reporting.gathering import TrainingExamples
    from robpicker_jax.training.objective import Batch

    experiment, state = picker.experiment, picker.state
    correct = partial(experiment.corrected, state) if "correction" in state.meta else None

    def weigh(batch: dict[str, Any]) -> np.ndarray:
        return np.asarray(experiment.inner_aux(state, Batch(**batch)).weight)

    return TrainingExamples(data.train, data.source(), correct, weigh if "reweighting" in state.meta else None)


def _counts(data: TrainingData) -> str:
    return "tomograms: " + ", ".join(f"{len(data.survey.splits[split])} {split}" for split in SPLITS)


def _scalings(workdir: Path) -> Path | None:
    """Where scalings are kept; by process 0 alone."""
    return workdir / "scalings.json" if parallel.is_first() else None


def _say_pace(seconds_a_step: float, seconds_left: float) -> None:
    _say(f"{seconds_a_step:.3g} s a step: about {clock(seconds_left)} to the last one, validations not counted")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
