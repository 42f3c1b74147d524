"""Data sets whose training labels are template matching's picks, in studies that have a section `matched`.

    DATA_HASH/{train,meta,val,test}/     the simulated data set's files, linked; of train, the matched lists
    DATA_HASH/candidates/SPLIT_NAME.npz  the best peaks of each template for itself, and its cut-off by their statistics
    DATA_HASH/matched.json               cut-offs of all tomograms, and radii: finished

Cut-offs are those of `robpicker match` (`--cutoff extreme`), or chosen on the clean meta tomograms, for each template where
F1 of its own peaks is best. What they let pass competes: where picks of two templates are nearer than the larger of their
radii, the better score stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.paper.study import Matched
from benchmarks.paper.thresholds import best_thresholds
from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.commands.job import evaluate
from robpicker_jax.config import Config, DataConfig
from robpicker_jax.config.matching_section import MatchingConfig, TemplateConfig
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, discover, open_tomogram
from robpicker_jax.evaluation.label_errors import label_errors
from robpicker_jax.matching import TemplateMatch, decide_classes, find_peaks
from robpicker_jax.matching.extraction import extreme_cutoff
from robpicker_jax.picking.template_picker import TemplatePicker
from robpicker_jax.system.files import atomic_path, read_json_object, write_text

_THRESHOLDS = "matched.json"
_SPLITS = ("train", "meta", "test")


class MatchedLists:
    """The matched lists of a data set.

    Args:
        folder: of the data set, labelled by `label`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        content = read_json_object(folder / _THRESHOLDS)
        self._thresholds, self._radii_vox = content["thresholds"], content["radii_vox"]

    def picks(self, tomogram: OpenedTomogram) -> Particles:
        """A tomogram's matched list."""
        return _decided(_read(_path(self._folder, tomogram.files)), self._of(tomogram), self._radii_vox)

    def _of(self, tomogram: OpenedTomogram) -> list[float]:
        """A tomogram's cut-offs."""
        return self._thresholds or _cutoffs(_path(self._folder, tomogram.files))

    def candidates(self, tomogram: OpenedTomogram) -> Particles:
        """The same with picks of each class below its cut-off, as far as no pick of another class takes their place."""
        everything, thresholds = _read(_path(self._folder, tomogram.files)), self._of(tomogram)
        found = []
        for label in range(1, len(thresholds) + 1):
            lower = [-np.inf if k == label else t for k, t in enumerate(thresholds, 1)]
            decided = _decided(everything, lower, self._radii_vox)
            found.append(decided.select(decided.labels == label))
        return Particles.concatenate(found)


def label(config: Config, matched: Matched) -> Config:
    """Match all tomograms of a simulated data set that is there; the configuration of the data set that results.

    What is finished of it is not done again.
    """
    assert config.data.dir is not None
    base = Path(config.data.dir)
    settings = matching_config(config, matched)
    text = json.dumps([repr(settings), matched.candidates, matched.cutoff])
    folder = base.with_name(f"{base.name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    found = replace(config, data=replace(config.data, dir=str(folder)))
    if (folder / _THRESHOLDS).exists():
        return found
    splits = discover(base)
    most = [round(matched.candidates * species.copies) for species in config.data.species]
    # One picker for each template, so that none forbids another's peaks before the cut-offs are known.
    alone = [replace(settings, templates=(template,)) for template in settings.templates]
    pickers = [TemplatePicker(each).candidates(count) for each, count in zip(alone, most, strict=True)]
    for files in (each for split in _SPLITS for each in splits[split]):
        path = _path(folder, files)
        if not path.exists():
            with open_tomogram(files, config.data) as tomogram:
                found_there = [picker.matcher.match(tomogram, mask=tomogram.mask).templates[0] for picker in pickers]
            cutoffs = [_cutoff(each, picker) for each, picker in zip(found_there, pickers, strict=True)]
            labelled = [
                each.particles.with_(labels=np.full(len(each.particles), k)) for k, each in enumerate(found_there, 1)
            ]
            _write(path, labelled, cutoffs)
    thresholds: list[float] = []
    if matched.cutoff == "clean":
        meta = [open_tomogram(files, config.data) for files in splits["meta"]]
        peaks = {tomogram.name: _read(_path(folder, tomogram.files)) for tomogram in meta}
        thresholds = best_thresholds(evaluate(config, meta[0], meta, peaks))
    radii = [picker.matcher.extraction[0].radius_vox for picker in pickers]
    for files in (each for split in splits.values() for each in split):
        (folder / files.split).mkdir(parents=True, exist_ok=True)
        for path in files.volume_path.parent.glob(f"{files.name}*"):
            if files.split != "train" or path != files.annotation_path:
                _link(path, folder / files.split / path.name)
        if files.split == "train":
            path = _path(folder, files)
            listed = _decided(_read(path), thresholds or _cutoffs(path), radii)
            names = np.array([species.name for species in config.data.species])
            listed = listed.with_(class_names=names[listed.labels - 1])
            write_annotations(folder / "train" / f"{files.name}_objl.xml", listed)
    content = {"thresholds": thresholds, "radii_vox": radii}
    write_text(folder / _THRESHOLDS, json.dumps(content, indent=1) + "\n")
    return found


def with_measured_corruption(config: Config) -> Config:
    """The configuration whose `train.corruption` errs as the matched lists of the meta tomograms do.

    As `robpicker evaluate --corruption` says it; what a comparison of lists does not tell stays as it is.
    """
    assert config.data.dir is not None
    lists, meta = MatchedLists(Path(config.data.dir)), open_annotated(config, "meta")
    clean = {tomogram.name: tomogram.particles for tomogram in meta if tomogram.particles is not None}
    species = config.data.species
    errors = label_errors(
        clean,
        {t.name: lists.picks(t) for t in meta},
        [each.radius_vox for each in species],
        [each.name for each in species],
    )
    corruption = replace(config.train.corruption, **errors.corruption(config.patches.size))
    return replace(config, train=replace(config.train, corruption=corruption))


def matching_config(config: Config, matched: Matched) -> MatchingConfig:
    """Template matching with the species themselves."""
    simulation, weighed = config.simulation, matched.weighing == "ctf"
    return MatchingConfig(
        templates=tuple(
            TemplateConfig(species.name, f"phantom:{species.phantom}" if species.phantom else str(species.density))
            for species in config.data.species
        ),
        voxel_size_angstrom=simulation.voxel_size_angstrom,
        contrast="dark" if simulation.dark_particles else "bright",
        tilts_deg=(-simulation.tilt_max_deg, simulation.tilt_max_deg),
        tilt_step_deg=simulation.tilt_step_deg if weighed else None,
        defocus_um=(simulation.defocus_um or None) if weighed else None,
        phase_flipped=simulation.ctf_correction == "phase_flip",
        voltage_kv=simulation.voltage_kv,
        spherical_aberration_mm=simulation.spherical_aberration_mm,
        amplitude_contrast=simulation.amplitude_contrast,
        angle_step_deg=matched.angle_step_deg,
    )


def open_annotated(config: Config, split: str) -> list[OpenedTomogram]:
    """The annotated tomograms of a split of a data set."""
    data: DataConfig = config.data
    assert data.dir is not None
    opened = [open_tomogram(files, data) for files in discover(data.dir)[split]]
    return [tomogram for tomogram in opened if tomogram.particles is not None]


def _path(folder: Path, files: TomogramFiles) -> Path:
    return folder / "candidates" / f"{files.split}_{files.name}.npz"


def _cutoff(found: TemplateMatch, picker: TemplatePicker) -> float:
    """The score that the statistics of all peaks of a template's map would let pass."""
    (extraction,) = picker.matcher.extraction
    return extreme_cutoff(find_peaks(found.scores, replace(extraction, max_picks=None)).scores, 1.0)


def _write(path: Path, lists: Sequence[Particles], cutoffs: Sequence[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            positions_vox=np.concatenate([each.positions_vox for each in lists]),
            labels=np.concatenate([each.labels for each in lists]),
            scores=np.concatenate([np.zeros(0) if each.scores is None else each.scores for each in lists]),
            cutoffs=np.array(cutoffs),
        )


def _read(path: Path) -> Particles:
    with np.load(path) as columns:
        return Particles(columns["positions_vox"], columns["labels"], scores=columns["scores"])


def _cutoffs(path: Path) -> list[float]:
    with np.load(path) as columns:
        return [float(value) for value in columns["cutoffs"]]


def above(particles: Particles, thresholds: Sequence[float]) -> Particles:
    """The picks whose score reaches the threshold of their class."""
    if not len(particles):
        return particles
    assert particles.scores is not None
    return particles.select(particles.scores >= np.array(thresholds)[particles.labels - 1])


def _decided(particles: Particles, thresholds: Sequence[float], radii_vox: Sequence[float]) -> Particles:
    """The picks of all templates that reach the cut-off of theirs, one class for each place."""
    labels, reached = range(1, len(thresholds) + 1), above(particles, thresholds)
    return decide_classes([reached.select(reached.labels == label) for label in labels], radii_vox)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
