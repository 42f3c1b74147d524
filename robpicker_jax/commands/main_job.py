"""The main job, end to end: data, training, and the results, which `job_results` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robpicker_jax import parallel
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.commands import run_state
from robpicker_jax.commands.checking import say_findings
from robpicker_jax.commands.job import Job, evaluate_picks, model_of, species_names, validation_split
from robpicker_jax.commands.job_results import calibrate, evaluate_test, keep_model, pick_all, report, with_thresholds
from robpicker_jax.config import Config
from robpicker_jax.datasets import SPLITS, OpenedTomogram
from robpicker_jax.models.model_file import MODEL_FILE, save_model
from robpicker_jax.picking.agreement import unlike_card
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.score_maps import check_picking
from robpicker_jax.picking.thresholds import build_threshold_rule
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import clock, console, say
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.data import TrainingData, load_training_data
from robpicker_jax.training.experiment import Experiment, build_experiment, check_names
from robpicker_jax.training.export import trained_model
from robpicker_jax.training.held_out import held_out_scores
from robpicker_jax.training.lock import locked
from robpicker_jax.training.meta_travel import travel_warnings
from robpicker_jax.training.out_of_memory import within_memory
from robpicker_jax.training.plan import prepare
from robpicker_jax.training.starting import started
from robpicker_jax.training.trainer import FitResult, fit

# Modules that are needed after training alone are imported then, so that the start does not take longer for them.


def run(config: Config, workdir: Path, *, results: bool = True) -> None:
    """Do the whole job, going on from wherever an earlier run of the same command stopped.

    Args:
        config: the configuration.
        workdir: the run's folder.
        results: also pick and evaluate the test tomograms, and report; without, the job ends with the last training step.

    Raises:
        InputError: bad data or configuration, another run in the folder, or a training that diverged.
    """
    check_names(config.model, config.train, config.evaluation, len(config.data.species) + 1)
    # A wrong name is refused before hours of training.
    check_picking(config.picking)
    if config.picking.thresholds is not None:
        build_threshold_rule(config.picking.thresholds, config.picking.threshold_options)
    configured_micro_batches = config.parallel.micro_batches
    parallel.start(config.parallel)
    if results and run_state.is_finished(config, workdir):
        return
    with locked(workdir) if parallel.is_first() else nullcontext():
        config = start(config, workdir)
        data = load_data(config, workdir)
        say_findings(config, data.survey, run_state.data_folder(config, workdir))
        _check_thresholds(config, data)
        experiment, batches = plan(config, workdir, data, configured_micro_batches)
        job = Job(experiment.config, workdir, data, experiment, validation_tomograms(data))
        if parallel.is_first():
            data.check_voxels("test")
            folders.record_densities(workdir, job.densities)
        experiment, result = within_memory(
            job.experiment,
            lambda experiment: train(job.with_experiment(experiment), batches),
            configured=configured_micro_batches,
            resident_bytes=data.resident_bytes,
            on_lowered=lambda lowered, planned: folders.record_plan(workdir, lowered.config, planned.record()),
        )
        job = job.with_experiment(experiment)
        if not parallel.is_first() or not results:
            return  # process 0 alone picks, evaluates and reports
        finish(job, result)


def start(config: Config, workdir: Path) -> Config:
    """Join the other processes, prepare the run's folder, and give the configuration as an earlier start planned it."""
    parallel.start(config.parallel)
    config = replace(config, parallel=folders.as_planned(workdir, config.parallel))
    if parallel.is_first():
        run_state.clear_leftovers(config, workdir)
        for line in run_state.schedule_changes(config, workdir):
            say(f"warning: {line}")
        folders.prepare(workdir, config)
    else:
        console.quiet = True
    enable_persistent_cache()
    return config


def finish(job: Job, result: FitResult) -> None:
    """Pick and evaluate the test tomograms with the best model, and report; then the run is finished."""
    run_state.begin_results(job.config, job.workdir)
    picker = keep_model(job, result)
    calibrate(job, picker)
    picker = with_thresholds(job, picker)
    test = job.data.open("test", "mapped")
    try:
        picks, dropped = pick_all(picker, test, job.workdir / "picks")
        evaluation = evaluate_test(job, test, picks, result.best_step)
        report(job, result, test, picks, evaluation, dropped)
    finally:
        for tomogram in test:
            tomogram.close()
    run_state.end_results(job.config, job.workdir, result.best_step)


def load_data(config: Config, workdir: Path) -> TrainingData:
    """The data set, read and checked; simulated first where the configuration names none.

    Raises:
        InputError: bad data, or other data than a training was begun with.
    """
    folder = run_state.data_folder(config, workdir)
    if parallel.is_first():
        run_state.check_inputs(folder, config.data, workdir)
    data = load_training_data(
        folder,
        data=config.data,
        patches=config.patches,
        model=config.model,
        train=config.train,
        parallel=config.parallel,
        scalings=_scalings(workdir),
    )
    say(f"{_counts(data)}; training in {workdir}")
    return data


def plan(
    config: Config, workdir: Path, data: TrainingData, configured_micro_batches: int, *, may_wait: bool = True
) -> tuple[Experiment, Callable[[int], Any]]:
    """Networks, steps and batches that fit the devices' memory; the plan is shown and kept.

    Args:
        config: the configuration.
        workdir: the run's folder.
        data: the data set.
        configured_micro_batches: the user's own `parallel.micro_batches`, before an earlier start changed it.
        may_wait: whether a step that is not taken first may be compiled later.
    """
    experiment = build_experiment(config)
    done = folders.trained_to(workdir)
    if config.train.init_from is not None and done is None:
        unlike = partial(
            unlike_card, data=config.data, voxel_size_angstrom=data.voxel_size_angstrom, tomograms=data.train
        )
        state, lines = started(experiment.state, config, experiment.mesh, unlike)
        experiment = replace(experiment, state=state)
        for line in lines:
            say(line)
    batches = data.batches(experiment.mesh)
    experiment, planned = prepare(
        experiment,
        configured=configured_micro_batches,
        resident_bytes=data.resident_bytes,
        done=done or 0,
        may_wait=may_wait,
    )
    if parallel.is_first():
        folders.record_plan(workdir, experiment.config, planned.record())
    for line in [*planned.lines(), *travel_warnings(experiment.config.train)]:
        say(line)
    return experiment, batches


def _check_thresholds(config: Config, data: TrainingData) -> None:
    """Refuse, before hours of training, thresholds that no tomogram could be asked for.

    Raises:
        InputError: `picking.thresholds` without meta and validation tomograms.
    """
    if config.picking.thresholds is not None and validation_split(data) == "train":
        raise InputError(
            "thresholds are chosen on meta and validation tomograms, and there are none",
            where="picking.thresholds",
            fix="leave it out, or annotate a tomogram for val",
        )


def validation_tomograms(data: TrainingData) -> list[OpenedTomogram]:
    """The annotated tomograms that choose the best model."""
    split = validation_split(data)
    if split == "val":
        tomograms = data.open("val")
    elif split == "meta":
        tomograms = data.meta
        say("no val/: the best model is chosen by its F1 on the meta tomograms, which is optimistic")
    else:
        tomograms = data.train
        say(
            "no val/ and no meta/: the best model is chosen by its F1 on the training tomograms themselves, which tells "
            "nothing of new ones, and scores are not calibrated"
        )
    return [tomogram for tomogram in tomograms if tomogram.particles is not None]


def train(job: Job, batches: Callable[[int], Any]) -> FitResult:
    """Train to the last step; each new best model is kept as a file, so that a run that is killed leaves its best."""

    from robpicker_jax.evaluation.validation import validation_scores

    choose_by, settings = job.config.evaluation.choose_by, job.config.train
    # Cut before the first step, so that labels that cannot be used are told of then.
    held_out = job.data.held_out if parallel.is_first() else []
    starts_warm = settings.is_bilevel and (folders.trained_to(job.workdir) or 0) < settings.n_meta_warmup_steps

    def validate(state: TrainState) -> Mapping[str, float]:
        scores = evaluate_picks(job, ModelPicker(trained_model(job.experiment, state)), job.validation)
        losses = held_out_scores(job.experiment, state, held_out, species_names(job.config))
        return validation_scores(scores, choose_by) | correction_scores(job, state) | losses

    def keep_best(state: TrainState, score: float) -> None:
        if parallel.is_first():
            save_model(job.workdir / MODEL_FILE, model_of(job, state, score))

    result = fit(
        job.experiment,
        batches,
        job.workdir,
        validate=validate,
        choose_by=choose_by,
        class_names=species_names(job.config),
        on_best=keep_best,
        on_pace=_say_pace_of_warm_up if starts_warm else _say_pace,
        place=job.data.place,
    )
    if result.input_wait_share is not None:
        say(f"the devices waited for input {100 * result.input_wait_share:.1f} % of the time")
    return result


def correction_scores(job: Job, state: TrainState) -> dict[str, float]:
    """How good the corrected labels of some training patches are, where clean maps are stored; else empty."""
    if "correction" not in state.meta or not parallel.is_first():
        return {}
    from robpicker_jax.training.correction_quality import quality_of_patches

    correct = partial(job.experiment.corrected, parallel.local(state))
    scores = quality_of_patches(correct, job.judged_patches, species_names(job.config))
    return {f"correction/{name}": value for name, value in scores.items()}


def _counts(data: TrainingData) -> str:
    return "tomograms: " + ", ".join(f"{len(data.survey.splits[split])} {split}" for split in SPLITS)


def _scalings(workdir: Path) -> Path | None:
    """Where scalings are kept; by process 0 alone."""
    return workdir / "scalings.json" if parallel.is_first() else None


def _say_pace(seconds_a_step: float, seconds_left: float) -> None:
    say(f"{seconds_a_step:.3g} s a step: about {clock(seconds_left)} to the last one, validations not counted")


def _say_pace_of_warm_up(seconds_a_step: float, seconds_left: float) -> None:
    rest = f"more than {clock(seconds_left)} to the last one, since steps after the warm-up take longer"
    say(f"{seconds_a_step:.3g} s a step: {rest}")
