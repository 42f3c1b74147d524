"""The main job, end to end: data, training, picking of the test tomograms, evaluation, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.commands import run_state
from robpicker_jax.commands.checking import say_findings
from robpicker_jax.config import Config
from robpicker_jax.datasets import SPLITS, OpenedTomogram
from robpicker_jax.datasets.densities import DensityStatistics, block_edge, density_statistics, together
from robpicker_jax.labels import clean_labels, label_maker
from robpicker_jax.models.model_file import MODEL_FILE, save_model
from robpicker_jax.models.trained_model import TrainedModel
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.score_maps import check_picking
from robpicker_jax.picking.thresholds import build_threshold_rule
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.files import write_text
from robpicker_jax.system.progress import clock, console, progress
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.data import TrainingData, load_training_data
from robpicker_jax.training.experiment import Experiment, build_experiment, check_names
from robpicker_jax.training.export import trained_model, validation_score
from robpicker_jax.training.held_out import held_out_scores
from robpicker_jax.training.lock import locked
from robpicker_jax.training.meta_travel import travel_warnings
from robpicker_jax.training.out_of_memory import within_memory
from robpicker_jax.training.plan import prepare
from robpicker_jax.training.starting import started
from robpicker_jax.training.trainer import FitResult, fit
from robpicker_jax.training.validations import stop_if_asked

if TYPE_CHECKING:
    from robpicker_jax.evaluation import Evaluation
    from robpicker_jax.reporting.gathering import TrainingExamples


# Modules that are needed after training alone are imported then, so that the start does not take longer for them.


@dataclass(frozen=True)
class Job:
    """What the steps of the main job share.

    Attributes:
        config: the configuration, as planned.
        workdir: the run's folder.
        data: the data set, ready to train on.
        experiment: networks, initial state and compiled steps.
        validation: annotated tomograms that choose the best model: those of val, or of meta where there is no val.
    """

    config: Config
    workdir: Path
    data: TrainingData
    experiment: Experiment
    validation: list[OpenedTomogram]

    @cached_property
    def densities(self) -> DensityStatistics | None:
        """Statistics of the training tomograms' densities as the network sees them."""
        block = block_edge([species.radius_vox for species in self.config.data.species])
        return together([density_statistics(tomogram, block) for tomogram in self.data.train])

    @cached_property
    def judged_patches(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Images, noisy and true labels of some training patches, where clean maps are stored; cut once a run."""
        from robpicker_jax.training.correction_quality import judged_patches

        truths = [clean_labels(tomogram, self.config.data) for tomogram in self.data.train]
        return judged_patches(self.data.noisy_source(augmented=False, anywhere=True), truths)


def run(config: Config, workdir: Path) -> None:
    """Do the whole job, going on from wherever an earlier run of the same command stopped.

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
    if run_state.is_finished(config, workdir):
        return
    with locked(workdir) if parallel.is_first() else nullcontext():
        config = start(config, workdir)
        data = load_data(config, workdir)
        say_findings(config, data.survey, run_state.data_folder(config, workdir))
        experiment, batches = plan(config, workdir, data, configured_micro_batches)
        job = Job(experiment.config, workdir, data, experiment, validation_tomograms(data))
        if parallel.is_first():
            data.check_voxels("test")
            folders.record_densities(workdir, job.densities)
        experiment, result = within_memory(
            job.experiment,
            lambda experiment: train(replace(job, config=experiment.config, experiment=experiment), batches),
            configured=configured_micro_batches,
            resident_bytes=data.resident_bytes,
            on_lowered=lambda lowered, planned: folders.record_plan(workdir, lowered.config, planned.record()),
        )
        job = replace(job, config=experiment.config, experiment=experiment)
        if not parallel.is_first():
            return  # process 0 alone picks, evaluates and reports
        finish(job, result)


def start(config: Config, workdir: Path) -> Config:
    """Join the other processes, prepare the run's folder, and give the configuration as an earlier start planned it."""
    parallel.start(config.parallel)
    config = replace(config, parallel=folders.as_planned(workdir, config.parallel))
    if parallel.is_first():
        run_state.clear_leftovers(config, workdir)
        for line in run_state.schedule_changes(config, workdir):
            _say(f"warning: {line}")
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
        picks = pick_all(picker, test, job.workdir / "picks")
        evaluation = evaluate_test(job, test, picks, result.best_step)
        report(job, result, test, picks, evaluation)
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
    _say(f"{_counts(data)}; training in {workdir}")
    return data


def plan(
    config: Config, workdir: Path, data: TrainingData, configured_micro_batches: int
) -> tuple[Experiment, Callable[[int], Any]]:
    """Networks, compiled steps and batches that fit the devices' memory; the plan is shown and kept.

    Args:
        config: the configuration.
        workdir: the run's folder.
        data: the data set.
        configured_micro_batches: the user's own `parallel.micro_batches`, before an earlier start changed it.
    """
    experiment = build_experiment(config)
    if config.train.init_from is not None and folders.trained_to(workdir) is None:
        state, lines = started(experiment.state, config, experiment.mesh)
        experiment = replace(experiment, state=state)
        for line in lines:
            _say(line)
    batches = data.batches(experiment.mesh)
    experiment, planned = prepare(experiment, configured=configured_micro_batches, resident_bytes=data.resident_bytes)
    if parallel.is_first():
        folders.record_plan(workdir, experiment.config, planned.record())
    for line in [*planned.lines(), *travel_warnings(experiment.config.train)]:
        _say(line)
    return experiment, batches


def validation_split(data: TrainingData) -> str:
    """The split that chooses the best model: val, or meta where there is no val."""
    return "val" if data.survey.splits["val"] else "meta"


def validation_tomograms(data: TrainingData) -> list[OpenedTomogram]:
    """The annotated tomograms that choose the best model."""
    tomograms = data.meta
    if validation_split(data) == "val":
        tomograms = data.open("val")
    else:
        _say("no val/: the best model is chosen by its F1 on the meta tomograms, which is optimistic")
    return [tomogram for tomogram in tomograms if tomogram.particles is not None]


def train(job: Job, batches: Callable[[int], Any]) -> FitResult:
    """Train to the last step; each new best model is kept as a file, so that a run that is killed leaves its best."""

    from robpicker_jax.evaluation.validation import validation_scores

    choose_by = job.config.evaluation.choose_by

    def validate(state: TrainState) -> Mapping[str, float]:
        scores = evaluate_picks(job, ModelPicker(trained_model(job.experiment, state)), job.validation)
        held_out = held_out_scores(job.experiment, state, job.data.held_out, _species_names(job.config))
        return validation_scores(scores, choose_by) | correction_scores(job, state) | held_out

    def keep_best(state: TrainState, score: float) -> None:
        if parallel.is_first():
            save_model(job.workdir / MODEL_FILE, _model(job, state, score))

    result = fit(
        job.experiment,
        batches,
        job.workdir,
        validate=validate,
        choose_by=choose_by,
        class_names=_species_names(job.config),
        on_best=keep_best,
        on_pace=_say_pace,
        place=job.data.place,
    )
    if result.input_wait_share is not None:
        _say(f"the devices waited for input {100 * result.input_wait_share:.1f} % of the time")
    return result


def correction_scores(job: Job, state: TrainState) -> dict[str, float]:
    """How good the corrected labels of some training patches are, where clean maps are stored; else empty."""
    if "correction" not in state.meta or not parallel.is_first():
        return {}
    from robpicker_jax.training.correction_quality import quality_of_patches

    correct = partial(job.experiment.corrected, parallel.local(state))
    scores = quality_of_patches(correct, job.judged_patches, _species_names(job.config))
    return {f"correction/{name}": value for name, value in scores.items()}


def keep_model(job: Job, result: FitResult) -> ModelPicker:
    """Write the best model as the run's model file, and give the picker that applies it."""
    model = _model(job, result.best, validation_score(job.workdir, result.best_step, job.config.evaluation.choose_by))
    save_model(job.workdir / MODEL_FILE, model)
    return ModelPicker(model)


def calibrate(job: Job, picker: ModelPicker) -> None:
    """Score thresholds by precision, on meta and validation tomograms: clean, and not the test set's."""
    from robpicker_jax.picking import calibration

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
        _say(f"{name}: scores of at least {threshold:.4g}, the best on the calibration tomograms")
    card = replace(picker.model.card, picking=replace(picking, min_scores=picking.min_scores | found))
    picker = ModelPicker(replace(picker.model, card=card))
    save_model(job.workdir / MODEL_FILE, picker.model)
    return picker


def pick_all(picker: ModelPicker, tomograms: Sequence[OpenedTomogram], folder: Path) -> dict[str, Particles]:
    """Pick every tomogram and write its picks."""
    from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles, PickTarget

    files = PickFiles(folder, PICK_FORMATS)
    picks = {}
    total = sum(picker.tiles(tomogram.shape_zyx) for tomogram in tomograms)
    with progress("picking", total) as bar:
        for tomogram in tomograms:
            picks[tomogram.name] = picker.pick(tomogram, bar.advance, mask=tomogram.mask)
            target = PickTarget(
                tomogram.name, tomogram.shape_zyx, tomogram.voxel_size_angstrom, tomogram.origin_angstrom
            )
            files.check([target])
            files.write(target, picks[tomogram.name])
    return picks


def evaluate_test(
    job: Job, test: Sequence[OpenedTomogram], picks: Mapping[str, Particles], step: int
) -> Evaluation | None:
    """Evaluate the picks of the annotated test tomograms, show the table and keep the numbers; None: there are none."""
    from robpicker_jax.evaluation import evaluation_table

    path = job.workdir / "evaluation.json"
    judged = [tomogram for tomogram in test if tomogram.particles is not None]
    if not judged:
        _say("no test tomogram has annotations: nothing to evaluate")
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
    )
    for sibling in comparable:
        if (sibling / "report" / "index.html").exists():
            _say(f"compared with {sibling} in the report")
    _say(f"picks: {job.workdir / 'picks'}\nreport: {page}")


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


def evaluate_picks(job: Job, picker: ModelPicker, tomograms: list[OpenedTomogram]) -> Evaluation:
    """Pick annotated tomograms and compare with their annotations."""
    picks = {}
    for tomogram in tomograms:
        stop_if_asked()
        picks[tomogram.name] = picker.pick(tomogram, mask=tomogram.mask)
    return evaluate(job.config, job.data, tomograms, picks)


def evaluate(
    config: Config,
    data: TrainingData | OpenedTomogram,
    tomograms: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
) -> Evaluation:
    """Compare picks with the annotations of their tomograms, by the configuration's rule; `data` tells the voxel size."""
    from robpicker_jax import evaluation

    truth = {tomogram.name: _particles(tomogram) for tomogram in tomograms}
    instances: dict[str, np.ndarray] | None = None
    if config.evaluation.rule in evaluation.LABEL_RULES and config.data.meta_labels == "shape":
        maker = label_maker(config.data.species, "shape", voxel_size_angstrom=data.voxel_size_angstrom)
        instances = {t.name: maker.instances(t.shape_zyx, _particles(t)) for t in tomograms}
    options = evaluation.EvaluationOptions.from_config(
        config.evaluation, config.data.species, voxel_size_angstrom=data.voxel_size_angstrom
    )
    masks = {tomogram.name: tomogram.mask for tomogram in tomograms if tomogram.mask is not None}
    return evaluation.evaluate(truth, picks, options, instance_maps=instances, regions=masks or None)


def _particles(tomogram: OpenedTomogram) -> Particles:
    assert tomogram.particles is not None
    return tomogram.particles


def _model(job: Job, state: TrainState, score: float | None) -> TrainedModel:
    return trained_model(
        job.experiment,
        state,
        voxel_size_angstrom=job.data.voxel_size_angstrom,
        densities=job.densities,
        score=score,
    )


def _species_names(config: Config) -> list[str]:
    return [species.name for species in config.data.species]


def _counts(data: TrainingData) -> str:
    return "tomograms: " + ", ".join(f"{len(data.survey.splits[split])} {split}" for split in SPLITS)


def _scalings(workdir: Path) -> Path | None:
    """Where scalings are kept; by process 0 alone."""
    return workdir / "scalings.json" if parallel.is_first() else None


def _say_pace(seconds_a_step: float, seconds_left: float) -> None:
    _say(f"{seconds_a_step:.3g} s a step: about {clock(seconds_left)} to the last one, validations not counted")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
