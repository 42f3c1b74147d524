"""Data sets whose training labels are template matching's picks, in studies that have a section `matched`.

    DATA_HASH/{train,meta,val,test}/     the simulated data set's files, linked; of train, the matched lists
    DATA_HASH/candidates/SPLIT_NAME.npz  the best peaks of each template, without a cut-off, one class for each place
    DATA_HASH/matched.json               the cut-offs: finished

Cut-offs are chosen on the clean meta tomograms, for each species where F1 is best, and the same for all lists.
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
from robpicker_jax.commands import main_job
from robpicker_jax.config import Config, DataConfig
from robpicker_jax.config.matching_section import MatchingConfig, TemplateConfig
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, discover, open_tomogram
from robpicker_jax.picking.template_picker import TemplatePicker
from robpicker_jax.system.files import atomic_path, read_json_object, write_text

_THRESHOLDS = "matched.json"
_SPLITS = ("train", "meta", "test")


class MatchedLists:
    """The matched lists of a data set.

    Args:
        folder: of the data set, labelled by `label`.
        names: of the species.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self.thresholds: dict[str, float] = read_json_object(folder / _THRESHOLDS)["thresholds"]

    def candidates(self, tomogram: OpenedTomogram) -> Particles:
        """A tomogram's candidates, below the cut-offs too."""
        return _read(_path(self._folder, tomogram.files), self._names)

    def picks(self, tomogram: OpenedTomogram) -> Particles:
        """A tomogram's candidates that the cut-offs let pass."""
        return _above(self.candidates(tomogram), [self.thresholds[name] for name in self._names])


def label(config: Config, matched: Matched) -> Config:
    """Match all tomograms of a simulated data set that is there; the configuration of the data set that results.

    What is finished of it is not done again.
    """
    assert config.data.dir is not None
    base, names = Path(config.data.dir), [species.name for species in config.data.species]
    settings = matching_config(config, matched)
    text = json.dumps([repr(settings), matched.candidates])
    folder = base.with_name(f"{base.name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    found = replace(config, data=replace(config.data, dir=str(folder)))
    if (folder / _THRESHOLDS).exists():
        return found
    splits = discover(base)
    most = round(matched.candidates * max(species.copies for species in config.data.species))
    picker: TemplatePicker | None = None
    for files in (each for split in _SPLITS for each in splits[split]):
        path = _path(folder, files)
        if not path.exists():
            picker = picker or TemplatePicker(settings).candidates(most)
            with open_tomogram(files, picker.data, mode="streamed") as tomogram:
                _write(path, picker.pick(tomogram, mask=tomogram.mask))
    meta = [open_tomogram(files, config.data) for files in splits["meta"]]
    clean = main_job.evaluate(config, meta[0], meta, {t.name: _read(_path(folder, t.files), names) for t in meta})
    thresholds = best_thresholds(clean)
    for files in (each for split in splits.values() for each in split):
        (folder / files.split).mkdir(parents=True, exist_ok=True)
        for path in files.volume_path.parent.glob(f"{files.name}*"):
            if files.split != "train" or path != files.annotation_path:
                _link(path, folder / files.split / path.name)
        if files.split == "train":
            listed = _above(_read(_path(folder, files), names), thresholds)
            write_annotations(folder / "train" / f"{files.name}_objl.xml", listed)
    chosen = dict(zip(names, thresholds, strict=True))
    write_text(folder / _THRESHOLDS, json.dumps({"thresholds": chosen}, indent=1) + "\n")
    return found


def matching_config(config: Config, matched: Matched) -> MatchingConfig:
    """Template matching with the species themselves, weighed as the simulation's tilt series is."""
    simulation = config.simulation
    return MatchingConfig(
        templates=tuple(
            TemplateConfig(species.name, f"phantom:{species.phantom}" if species.phantom else str(species.density))
            for species in config.data.species
        ),
        voxel_size_angstrom=simulation.voxel_size_angstrom,
        contrast="dark" if simulation.dark_particles else "bright",
        tilts_deg=(-simulation.tilt_max_deg, simulation.tilt_max_deg),
        tilt_step_deg=simulation.tilt_step_deg,
        defocus_um=simulation.defocus_um or None,
        phase_flipped=simulation.ctf_correction == "phase_flip",
        voltage_kv=simulation.voltage_kv,
        spherical_aberration_mm=simulation.spherical_aberration_mm,
        amplitude_contrast=simulation.amplitude_contrast,
        angle_step_deg=matched.angle_step_deg,
    )


def open_test(config: Config) -> list[OpenedTomogram]:
    """The annotated test tomograms of a data set."""
    data: DataConfig = config.data
    assert data.dir is not None
    opened = [open_tomogram(files, data) for files in discover(data.dir)["test"]]
    return [tomogram for tomogram in opened if tomogram.particles is not None]


def _path(folder: Path, files: TomogramFiles) -> Path:
    return folder / "candidates" / f"{files.split}_{files.name}.npz"


def _write(path: Path, particles: Particles) -> None:
    scores, rotations = particles.scores, particles.rotations
    if scores is None or rotations is None:  # no pick at all
        scores, rotations = np.zeros(0), np.zeros((0, 3, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            positions_vox=particles.positions_vox,
            labels=particles.labels,
            scores=scores,
            rotations=rotations,
        )


def _read(path: Path, names: Sequence[str]) -> Particles:
    with np.load(path) as columns:
        labels = columns["labels"]
        return Particles(
            columns["positions_vox"],
            labels,
            scores=columns["scores"],
            rotations=columns["rotations"],
            class_names=np.array(names)[labels - 1],
        )


def _above(particles: Particles, thresholds: Sequence[float]) -> Particles:
    assert particles.scores is not None
    return particles.select(particles.scores >= np.array(thresholds)[particles.labels - 1])


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
