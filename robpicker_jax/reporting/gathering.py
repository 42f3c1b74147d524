"""What a finished run tells its report: test tomograms, corrected labels, sample weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import OpenedTomogram
from robpicker_jax.evaluation import Evaluation
from robpicker_jax.labels import clean_labels
from robpicker_jax.patches import Batch, BatchSource, PatchPlan
from robpicker_jax.reporting.data import UNCOUNTED, ClassWeights, LabelExample, ReportData, SpeciesInfo, TomogramView
from robpicker_jax.reporting.page import write_report
from robpicker_jax.reporting.rejected import rejected_of
from robpicker_jax.reporting.stored import binned_density, load_workdir, save_inputs

_EXAMPLES = 4
_WEIGHT_BATCHES = 12

Correct = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Densities (n, z, y, x, 1) and labels (n, z, y, x) of patches → corrected label maps (n, z, y, x, class)."""
Weigh = Callable[[Batch], np.ndarray]
"""A training batch → the weight of each of its patches, (n,)."""


@dataclass(frozen=True, eq=False)
class TrainingExamples:
    """What a report shows of the training patches: the patches, and the meta networks as plain functions.

    Attributes:
        tomograms: of the training set, in the order of the source's.
        source: its batches.
        plain_source: the same patches as they lie in their tomograms, not augmented: to show where they are.
        correct: the label-correction network; None where none was trained.
        weigh: the data-reweighting network; None where none was trained.
    """

    tomograms: Sequence[OpenedTomogram]
    source: BatchSource
    plain_source: BatchSource
    correct: Correct | None = None
    weigh: Weigh | None = None


def write_run_report(
    workdir: Path,
    data: DataConfig,
    training: TrainingExamples,
    test: Sequence[OpenedTomogram],
    picks: Mapping[str, Particles],
    evaluation: Evaluation | None,
    *,
    variant: str,
    machine: str = "",
    validated_on: str = "val",
    comparable: Sequence[Path] = (),
    dropped: Mapping[str, Particles] | None = None,
) -> Path:
    """Gather the report's inputs, keep them in the workdir, and write the report and those of comparable runs.

    Args:
        workdir: the run's folder.
        data: the species, and what training labels were made from.
        training: the training patches and the meta networks.
        test: the test tomograms.
        picks: their picks, by name.
        evaluation: of the picks; None where no test tomogram has annotations.
        variant: `train.variant`.
        machine: the hardware in one line.
        validated_on: "val", or "meta" where there is no val/, or "train" where there is neither.
        dropped: the candidates that a limit dropped, by name of tomogram, as `ModelPicker.pick_judged` gives them.
        comparable: folders of runs whose reports, if they have one, are written again to compare with this run.

    Returns:
        The page.
    """
    report = ReportData(
        title=f"RobPicker: {workdir.resolve().name}",
        machine=machine,
        variant=variant,
        validated_on=validated_on,
        species=[SpeciesInfo(s.name, s.radius_vox, s.molecular_weight_kda) for s in data.species],
        tomograms=[_with_dropped(_view(t, picks[t.name], evaluation), dropped, data) for t in test],
        label_examples=label_examples(training, data),
        weights=sample_weights(training, data.species),
    )
    save_inputs(report, workdir)
    page = write_report(load_workdir(workdir), workdir / "report")
    for other in comparable:
        if (other / "report" / "index.html").exists():
            write_report(load_workdir(other), other / "report")
    return page


def _view(tomogram: OpenedTomogram, picks: Particles, evaluation: Evaluation | None) -> TomogramView:
    """What the report shows of a tomogram: true particles that count, and all picks, as decisions are about the saved list."""
    truth, matches = tomogram.particles, None
    if truth is not None and evaluation is not None and tomogram.name in evaluation.matches:
        matches = evaluation.matches[tomogram.name]
        counted, judged = (each[tomogram.name] for each in (evaluation.truth_counts, evaluation.pick_counts))
        counted_index = np.append(np.cumsum(counted) - 1, -1)  # the last entry is for picks without a match
        matches, truth = np.where(judged, counted_index[matches], UNCOUNTED), truth.select(counted)
    density, bins = binned_density(tomogram)  # slab by slab: large volumes are never held whole
    return TomogramView(
        tomogram.name,
        density,
        truth,
        picks,
        matches=matches,
        bin_zyx=bins,
        voxel_size_angstrom=tomogram.voxel_size_angstrom,
    )


def _with_dropped(view: TomogramView, dropped: Mapping[str, Particles] | None, data: DataConfig) -> TomogramView:
    """A view with the account of its dropped candidates, where they are known."""
    if dropped is None or view.name not in dropped:
        return view
    return replace(view, rejected=rejected_of(dropped[view.name], [species.name for species in data.species]))


def label_examples(training: TrainingExamples, data: DataConfig) -> list[LabelExample]:
    """Slices of training patches, named by where they lie: given, corrected and, where it is stored, true labels."""
    if training.correct is None:
        return []
    truths = [clean_labels(tomogram, data) for tomogram in training.tomograms]
    source = training.plain_source
    # Patches whose given label is furthest from the truth show most of what the correction does; each particle once.
    candidates: dict[tuple[int, object], tuple[int, PatchPlan, np.ndarray, np.ndarray, np.ndarray | None]] = {}
    for step in range(_EXAMPLES * 2):
        batch = source.train_batch(step)
        for row in range(len(batch["image"])):
            plan = source.plan("train", step, row)
            truth = truths[plan.tomogram]
            true = None if truth is None else source.cut_map("train", plan, truth)
            wrong = 0 if true is None else int((true != batch["label"][row]).sum())
            place = (plan.tomogram, plan.particle if plan.particle >= 0 else plan.corner_zyx)
            if place not in candidates or wrong > candidates[place][0]:
                candidates[place] = (wrong, plan, batch["image"][row], batch["label"][row], true)
    chosen = sorted(candidates.values(), key=lambda item: -item[0])[:_EXAMPLES]
    corrected = training.correct(np.stack([item[2] for item in chosen]), np.stack([item[3] for item in chosen]))
    examples = []
    for (_, plan, image, noisy, true), soft in zip(chosen, corrected, strict=True):
        differing = noisy.astype(bool) if true is None else true != noisy
        z = int(differing.sum(axis=(1, 2)).argmax())
        first_z, y, x = plan.corner_zyx
        half = image.shape[1] // 2
        examples.append(
            LabelExample(
                name=f"{training.tomograms[plan.tomogram].name}\nz {first_z + z}, y {y + half}, x {x + half}",
                image=image[z, ..., 0],
                noisy=noisy[z].astype(np.int32),
                corrected=None,
                true=None if true is None else true[z].astype(np.int32),
                probabilities=soft[z],
            )
        )
    return examples


def sample_weights(training: TrainingExamples, species: Sequence[Species]) -> list[ClassWeights]:
    """Weights that the reweighting network gives to training patches, by the species each was drawn for."""
    if training.weigh is None:
        return []
    batches = [training.source.train_batch(step) for step in range(_WEIGHT_BATCHES)]
    weight = np.concatenate([training.weigh(batch) for batch in batches])
    label = np.concatenate([batch["center_class"] for batch in batches])
    by_mass = all(entry.molecular_weight_kda for entry in species)
    return [
        ClassWeights(
            entry.name,
            float(entry.molecular_weight_kda or 0) if by_mass else entry.radius_vox,
            weight[label == index],
            "molecular weight, kDa" if by_mass else "radius, voxels",
        )
        for index, entry in enumerate(species, start=1)
        if (label == index).any()
    ]
