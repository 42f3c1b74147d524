"""What the doctor sees without reading every voxel: for the start of a training, which has headers and lists already.

The same checks as the doctor's, so that what he calls an error is one here. One volume in two splits is recognised by a
plane of its voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robpicker_jax.config import PatchConfig, PickingConfig
from robpicker_jax.datasets import SPLITS, Survey, TomogramFiles
from robpicker_jax.diagnosis import classes, patches, splits
from robpicker_jax.diagnosis.classes import Kind
from robpicker_jax.diagnosis.findings import Finding, worst_first
from robpicker_jax.diagnosis.observation import Header, Observation


def quick_findings(
    survey: Survey,
    *,
    patch: PatchConfig,
    picking: PickingConfig,
    stride: int = 1,
    with_meta: bool = True,
    needs_meta: bool = True,
) -> list[Finding]:
    """Findings on a surveyed data set, worst first.

    Args:
        survey: its headers and lists.
        patch: the section `patches`.
        picking: the section `picking`.
        stride: the network's, for remedies.
        with_meta: whether the training draws patches from meta/; without, what is missing there is a warning.
        needs_meta: whether there have to be tomograms in meta/ at all.
    """
    species = survey.data.species
    kinds = [Kind(entry.name, number, entry.radius_vox) for number, entry in enumerate(species, start=1)]
    observations = [_observation(survey, files) for split in SPLITS for files in survey.splits.get(split, ())]
    findings = splits.check_splits(observations, needs_meta=needs_meta)
    findings += _same_volumes(observations, survey.fingerprints)
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


def _same_volumes(
    observations: Sequence[Observation], fingerprints: Mapping[TomogramFiles, str | None]
) -> list[Finding]:
    """Volumes that are there twice."""
    first_with: dict[str, Observation] = {}
    findings = []
    for observation in observations:
        digest = fingerprints[observation.tomogram]
        if digest is None:
            continue
        other = first_with.setdefault(digest, observation)
        if other is not observation:
            findings.append(splits.same_volume(other, observation, 1.0))
    return findings
