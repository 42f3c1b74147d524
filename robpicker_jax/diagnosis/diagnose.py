"""The whole examination: headers, lists, voxels tomogram by tomogram, then the checks over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import read_annotations
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.annotations.options import check_options
from robpicker_jax.annotations.stated import agreed_length
from robpicker_jax.config import Config, DataConfig, Species
from robpicker_jax.datasets import SPLITS, dataset
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.diagnosis import classes, coordinates, headers, patches, resources, spectra, splits
from robpicker_jax.diagnosis.classes import Kind
from robpicker_jax.diagnosis.findings import Diagnosis, Finding, worst_first
from robpicker_jax.diagnosis.hypotheses import readings, stated_pixels
from robpicker_jax.diagnosis.observation import (
    Observation,
    check_label_map,
    measure,
    read_header,
    read_particles,
)
from robpicker_jax.models import build_backbone
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes

_GUESSED_RADIUS_ANGSTROM = 100.0
_GUESSED_RADIUS_VOX = 6.0
_LAYOUT = ("splits", "lists", "volumes", "copick", "annotation_options")


def diagnose(
    data: str | Path,
    config: Config | None = None,
    *,
    voxel_size_angstrom: float | None = None,
    annotation_options: Mapping[str, Any] | None = None,
    name_pattern: str | None = None,
    layout: DataConfig | None = None,
    resources_too: bool = True,
    on_tomogram: Callable[[str, int], None] | None = None,
) -> Diagnosis:
    """Examine a data set.

    Each volume is read once, and only one is in memory at a time. Nothing that a file holds makes this fail: what cannot
    be read is a finding.

    Args:
        data: folder of the data set.
        config: the configuration to train with; without it species and radii are guessed, and what depends on them is
            left out.
        voxel_size_angstrom: voxel size, where neither headers nor configuration know it.
        annotation_options: how lists are read, in place of the configuration's `data.annotation_options`.
        name_pattern: what of a tomogram's name counts, in place of the configuration's `data.name_pattern`.
        layout: `splits`, `lists` and `volumes` of a flat folder, where there is no configuration.
        resources_too: estimate memory and time, which starts JAX.
        on_tomogram: called with each tomogram's name and the number of tomograms, for progress.

    Raises:
        InputError: the folder does not exist, annotation options that no format has, or a voxel size that contradicts
            the configuration's.
    """
    if annotation_options is None and config is not None:
        annotation_options = config.data.annotation_options
    if name_pattern is None and config is not None:
        name_pattern = config.data.name_pattern
    check_options(annotation_options or {})
    rule = NameRule.of(name_pattern, "data.name_pattern")
    data = Path(data)
    if not data.is_dir() and not is_project(data):
        raise InputError("no such folder", where=data)
    try:
        section = config.data if config is not None else _layout(layout)
        splits_ = dataset(data, replace(section, name_pattern=name_pattern))
    except InputError as error:
        what = f"{error.where}: {error.what}" if error.where else error.what
        return Diagnosis(str(data), (Finding("error", "layout", what, error.fix),))

    stated = ("data.voxel_size_angstrom", config.data.voxel_size_angstrom if config else None)
    configured = agreed_length([("the given voxel size", voxel_size_angstrom), stated])
    findings: list[Finding] = []
    observations: list[Observation] = []
    for tomogram in (tomogram for split in SPLITS for tomogram in splits_[split]):
        observation, found = read_header(tomogram)
        observations.append(observation)
        findings += found
    voxel_size = headers.usual_voxel_size(observations, configured)
    findings += headers.check_headers(observations, configured)

    # Without a configuration, the names of lists by class tell the classes.
    classes_ = [species.name for species in config.data.species] if config else listed_classes(observations)
    class_labels = {name: k + 1 for k, name in enumerate(classes_)}
    for i, observation in enumerate(observations):
        observations[i], found = read_particles(observation, class_labels, configured, annotation_options, rule)
        findings += found
    kinds = _kinds(observations, config.data.species if config else None, voxel_size)
    observations = [_labelled(observation, kinds) for observation in observations]

    lists = [observation.particles for observation in observations if observation.particles is not None]
    with_origins = any(any(o.header.origin_angstrom) for o in observations if o.header)
    hypotheses = readings(voxel_size, stated_pixels(lists), with_origins=with_origins)
    radii = {kind.label: kind.radius_vox for kind in kinds} or {0: _GUESSED_RADIUS_VOX}
    for i, observation in enumerate(observations):
        observations[i], found = measure(observation, radii, hypotheses)
        findings += found
        if on_tomogram is not None:
            on_tomogram(observation.name, len(observations))

    counts = classes.count_classes(observations, kinds)
    findings += splits.check_splits(observations, needs_meta=config is None or config.train.uses_meta_tomograms)
    findings += coordinates.check_coordinates(
        observations, hypotheses, voxel_size, drop_outside=config is not None and config.data.outside == "drop"
    )
    findings += coordinates.check_density(observations)
    findings += classes.check_labels(observations, kinds) if config else []
    findings += classes.check_counts(counts, kinds)
    findings += classes.check_distances(observations, kinds)
    misread = {"in_angstrom", "binning", "centred", "origin", "axes_swapped", "flipped"} & {f.code for f in findings}
    if not misread:  # sizes seen at wrong positions mean nothing
        findings += classes.check_sizes(observations, kinds, voxel_size)
    findings += spectra.check_spectra({o.name: o.measures.spectrum for o in observations if o.measures})
    if config is None:
        what = "no configuration: classes, radii, patch sizes, memory and time were not checked"
        findings.append(Finding("info", "no_config", what, "give --config"))
    else:
        findings += _against_config(observations, config, resources_too)
    table = coordinates.hypothesis_table(observations)
    return Diagnosis(str(data), worst_first(findings), tuple(table), counts)


def _layout(given: DataConfig | None) -> DataConfig:
    """The section without what only a configuration of the user's own can say."""
    return DataConfig() if given is None else replace(DataConfig(), **{k: getattr(given, k) for k in _LAYOUT})


def listed_classes(observations: Sequence[Observation]) -> list[str]:
    """The classes that lists by class are named after, `{name}_{class}.star`; notes that are no list name none."""
    tomograms = [observation.tomogram for observation in observations if observation.tomogram.annotation_path is None]
    lists = [entry for tomogram in tomograms for entry in tomogram.class_lists or tomogram.folder_lists]
    return sorted({name for name, path in lists if _is_readable(path)})


def _is_readable(path: Path) -> bool:
    try:
        with gathered_notes():
            read_annotations(path, voxel_size_angstrom=1.0, shape_zyx=(1, 1, 1), allow_empty=True)
    except InputError:
        return False
    return True


def _against_config(observations: Sequence[Observation], config: Config, resources_too: bool) -> list[Finding]:
    findings = []
    kinds = {"train": config.data.train_labels} | dict.fromkeys(("meta", "val", "test"), config.data.meta_labels)
    for observation in observations:
        stored = observation.tomogram.target_path is not None
        needed = kinds[observation.tomogram.split] == "map" and observation.tomogram.split != "test"
        if kinds[observation.tomogram.split] == "map" and (stored or needed):
            findings += check_label_map(observation, len(config.data.species))
    backbone = build_backbone(config.model, len(config.data.species) + 1)
    findings += patches.check_volumes(observations, config.patches)
    findings += patches.check_strides(backbone, config.patches, config.inference)
    findings += patches.check_radii(config.data.species, config.patches, backbone.stride)
    findings += patches.check_clusters(config.data.species, config.picking)
    if resources_too:
        findings += resources.check_resources(observations, config)
    return findings


def _kinds(
    observations: Sequence[Observation], species: Sequence[Species] | None, voxel_size: float | None
) -> list[Kind]:
    """The configuration's species, or the classes of the lists with a guessed radius."""
    if species is not None:
        return [Kind(entry.name, k + 1, entry.radius_vox) for k, entry in enumerate(species)]
    radius = _GUESSED_RADIUS_VOX if not voxel_size else float(np.clip(_GUESSED_RADIUS_ANGSTROM / voxel_size, 3, 15))
    lists = [o.particles for o in observations if o.particles is not None and len(o.particles)]
    labels = sorted({int(label) for particles in lists for label in particles.labels} - {0})
    if labels:
        names: dict[int, str] = {}
        for particles in lists:
            if particles.class_names is not None:
                names |= dict(zip(particles.labels.tolist(), particles.class_names.tolist(), strict=True))
        return [Kind(names.get(label) or f"class {label}", label, radius, known=False) for label in labels]
    listed = sorted({str(n) for p in lists if p.class_names is not None for n in p.class_names} - {""})
    return [Kind(name, k + 1, radius, known=False) for k, name in enumerate(listed or ["particle"])]


def _labelled(observation: Observation, kinds: Sequence[Kind]) -> Observation:
    """Labels where a list gives none: by name, or the only class there is (as training takes it)."""
    particles = observation.particles
    if particles is None or particles.labels.any():
        return observation
    if particles.class_names is not None:
        by_name = {kind.name: kind.label for kind in kinds}
        labels = np.array([by_name.get(str(name), 0) for name in particles.class_names], np.int32)
    elif len(kinds) == 1:
        labels = np.full(len(particles), kinds[0].label, np.int32)
    else:
        return observation
    return replace(observation, particles=particles.with_(labels=labels))
