"""What the doctor sees without reading every voxel: for the start of a training, which has headers and lists already.

The same checks as the doctor's, so that what he calls an error is one here. One volume in two splits is recognised by a
plane of its voxels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from robpicker_jax.config import PatchConfig, PickingConfig
from robpicker_jax.datasets import SPLITS, Survey, TomogramFiles
from robpicker_jax.diagnosis import classes, patches, splits
from robpicker_jax.diagnosis.classes import Kind
from robpicker_jax.diagnosis.findings import Finding, worst_first
from robpicker_jax.diagnosis.observation import BROKEN, Header, Observation
from robpicker_jax.volumes import open_volume

_STEPS = 1000  # of the range of a plane's values, to which they are rounded: one volume in two modes stays the same


def quick_findings(
    survey: Survey, *, patch: PatchConfig, picking: PickingConfig, stride: int = 1, with_meta: bool = True
) -> list[Finding]:
    """Findings on a surveyed data set, worst first.

    Args:
        survey: its headers and lists.
        patch: the section `patches`.
        picking: the section `picking`.
        stride: the network's, for remedies.
        with_meta: whether the training draws patches from meta/; without, what is missing there is a warning.
    """
    species = survey.data.species
    kinds = [Kind(entry.name, number, entry.radius_vox) for number, entry in enumerate(species, start=1)]
    observations = [_observation(survey, files) for split in SPLITS for files in survey.splits.get(split, ())]
    findings = splits.check_splits(observations)
    findings += _same_volumes(observations)
    findings += classes.check_counts(classes.count_classes(observations, kinds), kinds)
    findings += classes.check_distances(observations, kinds)
    findings += patches.check_radii(species, patch, stride)
    findings += patches.check_clusters(species, picking)
    if not with_meta:
        findings = [_softened(finding) for finding in findings]
    return [finding for finding in worst_first(findings) if finding.severity != "info"]


def _observation(survey: Survey, files: TomogramFiles) -> Observation:
    return Observation(files, Header(survey.shapes_zyx[files], None), survey.particles.get(files))


def _softened(finding: Finding) -> Finding:
    if finding.code != "class_missing" or finding.where != ("meta",):
        return finding
    return Finding("warning", finding.code, finding.what, finding.fix, finding.where, finding.evidence)


def _same_volumes(observations: Sequence[Observation]) -> list[Finding]:
    """Volumes that are there twice."""
    first_with: dict[str, Observation] = {}
    findings = []
    for observation in observations:
        digest = _digest(observation.tomogram)
        if digest is None:
            continue
        other = first_with.setdefault(digest, observation)
        if other is not observation:
            findings.append(splits.same_volume(other, observation, 1.0))
    return findings


def _digest(files: TomogramFiles) -> str | None:
    """Hash of the shape and the middle plane; None where that cannot be read, which others say."""
    try:
        with open_volume(files.volume_path) as reader:
            middle = reader.shape_zyx[0] // 2
            plane = reader.read((slice(middle, middle + 1), slice(None), slice(None)), check=False)
            shape = reader.shape_zyx
    except BROKEN:
        return None
    low, high = float(plane.min()), float(plane.max())
    if not high > low or not np.isfinite(high - low):  # an empty plane tells nothing
        return None
    steps = np.rint((plane - low) / (high - low) * _STEPS).astype(np.int32)
    return hashlib.sha256(np.array(shape, np.int64).tobytes() + steps.tobytes()).hexdigest()
