"""What the main job makes when training is over: the model file, calibration, picks, evaluation, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.commands.job import Job, evaluate, evaluate_picks, model_of, validation_split
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.models.model_file import MODEL_FILE, save_model
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.system.files import write_text
from robpicker_jax.system.progress import console, progress, say
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.export import validation_score
from robpicker_jax.training.trainer import FitResult

if TYPE_CHECKING:
    from robpicker_jax.evaluation import Evaluation
    from robpicker_jax.reporting.gathering import TrainingExamples


# Modules that are needed after training alone are imported then, so that the start does not take longer for them.


def keep_model(job: Job, result: FitResult) -> ModelPicker:
    """Write the best model as the run's model file, and give the picker that applies it."""
    model = model_of(job, result.best, validation_score(job.workdir, result.best_step, job.config.evaluation.choose_by))
    save_model(job.workdir / MODEL_FILE, model)
    return ModelPicker(model)


def calibrate(job: Job, picker: ModelPicker) -> None:
    """Score thresholds by precision, on meta and validation tomograms: clean, and not the test set's; none without these."""
    from robpicker_jax.picking import calibration

    if validation_split(job.data) == "train":
        (job.workdir / calibration.FILE).unlink(missing_ok=True)
        return
    known = {tomogram.name for tomogram in job.data.meta}
    clean = job.data.meta + [tomogram for tomogram in job.validation if tomogram.name not in known]
    evaluation = evaluate_picks(job, picker, clean)
    calibration.save(job.workdir, calibration.calibrate(evaluation), [tomogram.name for tomogram in clean])


def with_thresholds(job: Job, picker: ModelPicker) -> ModelPicker:
    """The picker with the thresholds that were best on the calibration tomograms, where the configuration asks for them.

    The model's file gets them as its `picking.min_scores`, so that it picks as the run did.
    """
    from robpicker_jax.picking.thresholds import chosen_thresholds

    picking = picker.model.card.picking
    if picking.thresholds is None:
        return picker
    found = chosen_thresholds(job.workdir, picker.class_names, picking.thresholds, picking.threshold_options)
    for name, threshold in found.items():
        say(f"{name}: scores of at least {threshold:.4g}, the best on the calibration tomograms")
    card = replace(picker.model.card, picking=replace(picking, min_scores=picking.min_scores | found))
    picker = ModelPicker(replace(picker.model, card=card))
    save_model(job.workdir / MODEL_FILE, picker.model)
    return picker


def pick_all(
    picker: ModelPicker, tomograms: Sequence[OpenedTomogram], folder: Path
) -> tuple[dict[str, Particles], dict[str, Particles]]:
    """Pick every tomogram and write its picks; gives them, and the candidates that a limit dropped, by name of tomogram."""
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles, PickTarget

    files = PickFiles(folder, PICK_FORMATS)
    picks, dropped = {}, {}
    total = sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)
    with progress("picking", total) as bar:
        for tomogram in tomograms:
            found = picker.pick_judged(tomogram, bar.advance, mask=tomogram.mask)
            picks[tomogram.name], dropped[tomogram.name] = found
            target = PickTarget(
                tomogram.name, tomogram.shape_zyx, tomogram.voxel_size_angstrom, tomogram.origin_angstrom
            )
            files.check([target])
            files.write(target, picks[tomogram.name])
    return picks, dropped


def evaluate_test(
    job: Job, test: Sequence[OpenedTomogram], picks: Mapping[str, Particles], step: int
) -> Evaluation | None:
    """Evaluate the picks of the annotated test tomograms, show the table and keep the numbers; None: there are none."""
    from robpicker_jax.evaluation import evaluation_table

    path = job.workdir / "evaluation.json"
    judged = [tomogram for tomogram in test if tomogram.particles is not None]
    if not judged:
        what = "no test tomogram has annotations" if test else "there is no test tomogram"
        say(f"{what}: nothing to {'evaluate' if test else 'pick or evaluate'}")
        write_text(path, json.dumps({"macro": {"f1": None}}) + "\n")
        return None
    evaluation = evaluate(job.config, job.data, judged, {tomogram.name: picks[tomogram.name] for tomogram in judged})
    console.print(evaluation_table(evaluation, title=f"Test set, model of step {step}"))
    write_text(path, json.dumps(evaluation.as_dict(), indent=2) + "\n")
    return evaluation


def report(
    job: Job,
    result: FitResult,
    test: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
    evaluation: Evaluation | None,
    dropped: Mapping[str, Particles] | None = None,
) -> None:
    """Write the run's report, and those of runs that it is compared with."""
    from robpicker_jax.reporting.gathering import write_run_report

    comparable = [sibling for sibling, _ in folders.siblings(job.workdir, job.config)]
    page = write_run_report(
        job.workdir,
        job.config.data,
        training_examples(job, parallel.local(result.best)),
        test,
        picks,
        evaluation,
        variant=job.config.train.variant,
        machine=folders.machine(),
        validated_on=validation_split(job.data),
        comparable=comparable,
        dropped=dropped,
    )
    for sibling in comparable:
        if (sibling / "report" / "index.html").exists():
            say(f"compared with {sibling} in the report")
    if test:
        say(f"picks: {job.workdir / 'picks'}")
    say(f"report: {page}")


def training_examples(job: Job, state: TrainState) -> TrainingExamples:
    """Training patches and what the trained meta networks make of them, for the report."""
    from robpicker_jax.reporting.gathering import TrainingExamples
    from robpicker_jax.training.objective import Batch

    correct = partial(job.experiment.corrected, state) if "correction" in state.meta else None

    def weigh(batch: dict[str, Any]) -> np.ndarray:
        return np.asarray(job.experiment.inner_aux(state, Batch(**batch)).weight)

    weigh_patches = weigh if "reweighting" in state.meta else None
    sources = job.data.noisy_source(), job.data.noisy_source(augmented=False)
    return TrainingExamples(job.data.train, *sources, correct, weigh_patches)
