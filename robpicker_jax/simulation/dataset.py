"""A whole simulated data set on disk, with its truth and a manifest, made once and completed when interrupted.

    DIR/simulation.json                      manifest: settings, inputs, versions, files with their SHA-256, finished
    DIR/{train,meta,val,test}/
        {name}.mrc                           tomogram
        {name}_objl.xml                      annotations with angles; of train, with the planted label noise
        {name}_target.mrc                    label map of the true shapes
        {name}_truth_objl.xml                train: the clean annotations
        {name}_label_noise.json              train: what the label noise did
                                             (of meta too, where `label_noise.splits` names it)

Every tomogram depends on the seed, its split and its number alone, not on how many others there are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robpicker_jax.annotations import write_annotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.labels import ShapeLabels
from robpicker_jax.molecules import species_density, species_mask
from robpicker_jax.simulation.jobs import DatasetRecipe, Job, read_placement
from robpicker_jax.simulation.label_noise import add_label_noise
from robpicker_jax.simulation.manifest import digest, is_complete, open_manifest, settings_of, write_manifest
from robpicker_jax.simulation.placement import outline
from robpicker_jax.simulation.tomogram import SimulatedTomogram, simulate_at, simulate_tomogram
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, write_text
from robpicker_jax.volumes import write_mrc

_FIRST_LABEL = 224  # offset in an MRC header


@runtime_checkable
class Advances(Protocol):
    """A progress display (see `robpicker_jax.system.progress`)."""

    def advance(self, n: int = 1, **fields: object) -> None:
        """Count one more tomogram."""
        ...


def simulate_dataset(recipe: DatasetRecipe, out: str | Path, progress: Advances | None = None) -> dict[str, Any]:
    """Make a data set, or what is missing of it.

    A finished data set of the same settings is left as it is; an interrupted one is completed.

    Args:
        recipe: what it is made from.
        out: the folder.
        progress: advanced by one for every tomogram, made or found.

    Returns:
        The manifest.

    Raises:
        InputError: the folder holds something else, a species cannot be drawn, particles do not fit, a bad placement.
    """
    out = Path(out)
    jobs = list(recipe.jobs())
    if not jobs:
        raise InputError("no tomogram to simulate", where="simulation", fix="set simulation.train, meta, val or test")
    manifest = open_manifest(out, settings_of(recipe))
    done: dict[str, Any] = manifest["tomograms"]
    tools: _Tools | None = None
    for job in jobs:
        if not is_complete(out, done.get(job.name)):
            tools = tools or _Tools(recipe)
            manifest["finished"] = False
            # Before the first file, too: a run that is killed while it writes that one must find its folder its own.
            write_manifest(out, manifest)
            done[job.name] = _make(job, tools, out)
            write_manifest(out, manifest)
        if progress is not None:
            progress.advance(1, tomogram=job.name)
    if not manifest["finished"]:
        for stale in out.glob("*/.tmp-*"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        manifest["finished"] = True
        write_manifest(out, manifest)
    return manifest


def is_finished(recipe: DatasetRecipe, out: str | Path) -> bool:
    """Whether a folder holds the finished data set of a recipe.

    Raises:
        InputError: it holds something else.
    """
    manifest = open_manifest(Path(out), settings_of(recipe))
    return bool(manifest["finished"]) and all(
        is_complete(Path(out), manifest["tomograms"].get(job.name)) for job in recipe.jobs()
    )


class _Tools:
    """What all tomograms of a data set share: densities, outlines, masks."""

    def __init__(self, recipe: DatasetRecipe) -> None:
        self.recipe = recipe
        voxel_size = recipe.simulation.voxel_size_angstrom
        self.densities = [species_density(species, voxel_size) for species in recipe.species]
        self.outlines = [outline(d, margin_vox=recipe.simulation.min_gap_vox / 2) for d in self.densities]
        self.shapes = ShapeLabels([species_mask(species, voxel_size) for species in recipe.species])

    def simulate(self, job: Job) -> SimulatedTomogram:
        simulation = self.recipe.simulation
        if job.placement is None:
            copies = [entry.copies for entry in self.recipe.species]
            return simulate_tomogram(self.densities, copies, simulation, key=job.key, outlines=self.outlines)
        particles = read_placement(job.placement, self.recipe)
        return simulate_at(particles, self.densities, simulation, key=job.key)


def _make(job: Job, tools: _Tools, out: Path) -> dict[str, Any]:
    """Simulate one tomogram and write its files; the volume comes last, so that no half-made tomogram is ever found."""
    simulation, species = tools.recipe.simulation, tools.recipe.species
    made = tools.simulate(job)
    names = np.array([entry.name for entry in species])
    ids = np.arange(len(made.particles))
    truth = Particles(
        made.particles.positions_vox,
        made.particles.labels,
        rotations=made.particles.rotations,
        class_names=names[made.particles.labels - 1],
        extra={"obj_id": ids},
    )
    written: list[Path] = []

    def path(suffix: str) -> Path:
        written.append(out / job.split / f"{job.name}{suffix}")
        return written[-1]

    listed = truth
    if job.split in tools.recipe.label_noise.splits:
        write_annotations(path("_truth_objl.xml"), truth)
        listed, record = add_label_noise(
            truth.with_(extra={}),
            species,
            simulation.shape_zyx,
            tools.recipe.label_noise,
            voxel_size_angstrom=simulation.voxel_size_angstrom,
            key=job.key,
            spots_vox=made.beads_vox,
        )
        record["beads_xyz"] = made.beads_vox.tolist()
        false = np.arange(len(record["added"])) + len(truth)
        listed = listed.with_(extra={"obj_id": np.concatenate([np.array(record["kept"], int), false])})
        write_text(path("_label_noise.json"), json.dumps(record, indent=1) + "\n")
    write_annotations(path("_objl.xml"), listed)
    labels = tools.shapes.labels(simulation.shape_zyx, truth)
    _write_volume(path("_target.mrc"), labels, simulation.voxel_size_angstrom)
    _write_volume(path(".mrc"), made.density, simulation.voxel_size_angstrom)
    counts = np.bincount(truth.labels, minlength=len(species) + 1)[1:]
    return {
        "split": job.split,
        "particles": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        "files": {
            str(file.relative_to(out)): {"bytes": file.stat().st_size, "sha256": digest(file)} for file in written
        },
    }


def _write_volume(path: Path, data: np.ndarray, voxel_size_angstrom: float) -> None:
    """Write an MRC file without the time that mrcfile puts into its first label: same data, same bytes."""
    with atomic_path(path) as temporary:
        write_mrc(temporary, data, voxel_size_angstrom)
        with temporary.open("r+b") as stream:
            stream.seek(_FIRST_LABEL)
            stream.write(b"robpicker_jax simulation".ljust(80))
