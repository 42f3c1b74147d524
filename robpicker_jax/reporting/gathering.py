"""What a finished run tells its report: test tomograms, corrected labels, sample weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.bilevel.step import TrainState
from robpicker_jax.config import Config
from robpicker_jax.datasets import OpenedTomogram, load_target
from robpicker_jax.evaluation import Evaluation
from robpicker_jax.patches import BatchSource, PatchPlan
from robpicker_jax.reporting.data import ClassWeights, LabelExample, ReportData, SpeciesInfo, TomogramView
from robpicker_jax.reporting.page import write_report
from robpicker_jax.reporting.stored import load_workdir, save_inputs
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.data import TrainingData
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.objective import Batch

_EXAMPLES = 4
_WEIGHT_BATCHES = 12


def write_run_report(
    workdir: Path,
    experiment: Experiment,
    state: TrainState,
    data: TrainingData,
    test: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
    evaluation: Evaluation | None,
) -> Path:
    """Gather the report's inputs, keep them in the workdir, and write the report and those of comparable runs.

    Returns:
        The page.
    """
    config = experiment.config
    source = data.source()
    report = ReportData(
        title=f"RobPicker: {workdir.resolve().name}",
        machine=folders.machine(),
        variant=config.train.variant,
        species=[SpeciesInfo(s.name, s.radius_vox, s.molecular_weight_kda) for s in config.data.species],
        tomograms=[_view(tomogram, picks[tomogram.name], evaluation) for tomogram in test],
        label_examples=label_examples(experiment, state, data, source),
        weights=sample_weights(experiment, state, source),
    )
    save_inputs(report, workdir)
    page = write_report(load_workdir(workdir), workdir / "report")
    for sibling, _ in folders.siblings(workdir, config):
        if (sibling / "report" / "index.html").exists():
            write_report(load_workdir(sibling), sibling / "report")
    return page


def _view(tomogram: OpenedTomogram, picks: Particles, evaluation: Evaluation | None) -> TomogramView:
    """What the report shows of a tomogram: true particles and picks that count, where some lie outside its mask."""
    truth, matches = tomogram.particles, None
    if truth is not None and evaluation is not None and tomogram.name in evaluation.matches:
        matches = evaluation.matches[tomogram.name]
        counted, judged = (each[tomogram.name] for each in (evaluation.truth_counts, evaluation.pick_counts))
        places = np.append(np.cumsum(counted) - 1, -1)  # the last entry is for picks without a match
        matches, truth, picks = places[matches[judged]], truth.select(counted), picks.select(judged)
    return TomogramView(
        tomogram.name,
        np.asarray(tomogram),
        truth,
        picks,
        matches=matches,
        voxel_size_angstrom=tomogram.voxel_size_angstrom,
    )


def label_examples(
    experiment: Experiment, state: TrainState, data: TrainingData, source: BatchSource
) -> list[LabelExample]:
    """Central slices of training patches: noisy, corrected and, where a clean map is stored, true labels."""
    if "correction" not in state.meta:
        return []
    truths = {tomogram.name: _stored_truth(tomogram, experiment.config) for tomogram in data.train}
    # Patches whose noisy label is furthest from the truth show most of what the correction does.
    candidates = []
    for step in range(_EXAMPLES * 2):
        batch = source.train_batch(step)
        for row in range(len(batch["image"])):
            plan = source.plan("train", step, row)
            truth = truths[data.train[plan.tomogram].name]
            true = None if truth is None or plan.rotation is not None else _cut(truth, plan, batch["label"].shape[1])
            wrong = 0 if true is None else int((true != batch["label"][row]).sum())
            candidates.append((wrong, step, row, batch["image"][row], batch["label"][row], true))
    candidates.sort(key=lambda item: -item[0])
    chosen = candidates[:_EXAMPLES]
    corrected = experiment.corrected(
        state, np.stack([item[3] for item in chosen]), np.stack([item[4] for item in chosen])
    )
    examples = []
    for (_, step, row, image, noisy, true), soft in zip(chosen, corrected, strict=True):
        differing = noisy.astype(bool) if true is None else true != noisy
        z = int(differing.sum(axis=(1, 2)).argmax())
        examples.append(
            LabelExample(
                name=f"training patch {step}/{row}, z = {z}",
                image=image[z, ..., 0],
                noisy=noisy[z].astype(np.int32),
                corrected=None,
                true=None if true is None else true[z].astype(np.int32),
                probabilities=soft[z],
            )
        )
    return examples


def sample_weights(experiment: Experiment, state: TrainState, source: BatchSource) -> list[ClassWeights]:
    """Weights that the reweighting network gives to training patches, by the species each was drawn for."""
    if "reweighting" not in state.meta:
        return []
    weights, classes = [], []
    for step in range(_WEIGHT_BATCHES):
        batch = Batch(**source.train_batch(step))  # type: ignore[arg-type]
        weights.append(experiment.inner_aux(state, batch).weight)
        classes.append(batch.center_class)
    weight, label = np.concatenate(weights), np.concatenate(classes)
    by_mass = all(species.molecular_weight_kda for species in experiment.config.data.species)
    return [
        ClassWeights(
            species.name,
            float(species.molecular_weight_kda or 0) if by_mass else species.radius_vox,
            weight[label == index],
            "molecular weight, kDa" if by_mass else "radius, voxels",
        )
        for index, species in enumerate(experiment.config.data.species, start=1)
        if (label == index).any()
    ]


def _stored_truth(tomogram: OpenedTomogram, config: Config) -> np.ndarray | None:
    """The clean label map that a simulated data set keeps beside its noisy annotations."""
    if config.data.train_labels == "map" or tomogram.files.target_path is None:
        return None
    return load_target(tomogram.files, len(config.data.species), tomogram.shape_zyx)


def _cut(volume: np.ndarray, plan: PatchPlan, size: int) -> np.ndarray:
    """The patch of a label map that a plan describes, turned as the plan says."""
    box = tuple(slice(corner, corner + size) for corner in plan.corner_zyx)
    return plan.turn.apply(volume[box])
