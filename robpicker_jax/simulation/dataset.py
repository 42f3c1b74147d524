"""A whole simulated data set on disk, with its truth and a manifest, made once and completed when interrupted.

    DIR/simulation.json                      manifest: settings, inputs, versions, files with their SHA-256, finished
    DIR/{train,meta,val,test}/
        {name}.mrc                           tomogram
        {name}_objl.xml                      annotations with angles; of train, with the planted label noise
        {name}_target.mrc                    label map of the true shapes
        {name}_truth_objl.xml                train: the clean annotations
        {name}_label_noise.json              train: what the label noise did

Every tomogram depends on the seed, its split and its number alone, not on how many others there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import Config
from robpicker_jax.datasets import SPLITS
from robpicker_jax.labels import ShapeLabels
from robpicker_jax.molecules.densities import species_density, species_mask
from robpicker_jax.simulation.label_noise import add_label_noise
from robpicker_jax.simulation.placement import outline
from robpicker_jax.simulation.tomogram import SimulatedTomogram, simulate_at, simulate_tomogram
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, write_text
from robpicker_jax.system.version import __version__
from robpicker_jax.volumes import write_mrc

MANIFEST = "simulation.json"

_FIRST_LABEL = 224  # offset in an MRC header
_FORMAT = 1  # raised whenever the same settings would give other data


class Advances(Protocol):
    """A progress display (see `robpicker_jax.system.progress`)."""

    def advance(self, n: int = 1, **fields: object) -> None:
        """Count one more tomogram."""
        ...


@dataclass(frozen=True)
class Placement:
    """A tomogram whose particles are placed as in an annotation file.

    Attributes:
        split: "train", "meta", "val" or "test".
        path: annotation file of any supported format; positions and labels count, and angles where it has them.
        tomogram: which one, where the file lists several.
    """

    split: str
    path: Path
    tomogram: str | None = None


@dataclass(frozen=True)
class _Job:
    split: str
    index: int
    placement: Placement | None = None

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:03d}"


def count_tomograms(config: Config, placements: Sequence[Placement] = ()) -> int:
    """How many tomograms `simulate_dataset` makes."""
    return sum(1 for _ in _jobs(config, placements))


def simulate_dataset(
    config: Config,
    out: str | Path,
    progress: Advances | None = None,
    *,
    placements: Sequence[Placement] = (),
) -> dict[str, Any]:
    """Make the data set that a configuration describes, or what is missing of it.

    A finished data set of the same settings is left as it is; an interrupted one is completed.

    Args:
        config: `data.species`, `simulation` and `label_noise` count.
        out: the folder.
        progress: advanced by one for every tomogram, made or found.
        placements: make these tomograms, particles at given places, instead of `simulation.train` … `test` random ones.

    Returns:
        The manifest.

    Raises:
        InputError: the folder holds something else, a species cannot be drawn, particles do not fit, a bad placement.
    """
    out = Path(out)
    jobs = list(_jobs(config, placements))
    if not jobs:
        raise InputError("no tomogram to simulate", where="simulation", fix="set simulation.train, meta, val or test")
    settings = _settings(config, placements)
    manifest = _open_manifest(out, settings)
    done: dict[str, Any] = manifest["tomograms"]
    tools: _Tools | None = None
    for job in jobs:
        if not _is_complete(out, done.get(job.name)):
            tools = tools or _Tools(config)
            manifest["finished"] = False
            done[job.name] = _make(job, tools, out)
            _write_manifest(out, manifest)
        if progress is not None:
            progress.advance(1, tomogram=job.name)
    if not manifest["finished"]:
        for stale in out.glob("*/.tmp-*"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        manifest["finished"] = True
        _write_manifest(out, manifest)
    return manifest


def is_finished(config: Config, out: str | Path, placements: Sequence[Placement] = ()) -> bool:
    """Whether a folder holds the finished data set of a configuration.

    Raises:
        InputError: it holds something else.
    """
    manifest = _open_manifest(Path(out), _settings(config, placements))
    return bool(manifest["finished"]) and all(
        _is_complete(Path(out), manifest["tomograms"].get(job.name)) for job in _jobs(config, placements)
    )


class _Tools:
    """What all tomograms of a data set share: densities, outlines, masks."""

    def __init__(self, config: Config) -> None:
        self.config = config
        voxel_size = config.simulation.voxel_size_angstrom
        self.densities = [species_density(species, voxel_size) for species in config.data.species]
        self.outlines = [outline(d, margin_vox=config.simulation.min_gap_vox / 2) for d in self.densities]
        self.shapes = ShapeLabels([species_mask(species, voxel_size) for species in config.data.species])

    def simulate(self, job: _Job, key: tuple[int, ...]) -> SimulatedTomogram:
        simulation, species = self.config.simulation, self.config.data.species
        if job.placement is None:
            copies = [entry.copies for entry in species]
            return simulate_tomogram(self.densities, copies, simulation, key=key, outlines=self.outlines)
        particles = _read_placement(job.placement, self.config)
        return simulate_at(particles, self.densities, simulation, key=key)


def _jobs(config: Config, placements: Sequence[Placement]) -> Iterator[_Job]:
    if placements:
        counts = dict.fromkeys(SPLITS, 0)
        for placement in placements:
            if placement.split not in counts:
                raise InputError(f"unknown split {placement.split!r}", fix=f"use one of {', '.join(SPLITS)}")
            yield _Job(placement.split, counts[placement.split], placement)
            counts[placement.split] += 1
        return
    for split in SPLITS:
        for index in range(getattr(config.simulation, split)):
            yield _Job(split, index)


def _make(job: _Job, tools: _Tools, out: Path) -> dict[str, Any]:
    """Simulate one tomogram and write its files; the volume comes last, so that no half-made tomogram is ever found."""
    config, key = tools.config, (SPLITS.index(job.split), job.index)
    simulation, species = config.simulation, config.data.species
    made = tools.simulate(job, key)
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
    if job.split == "train":
        write_annotations(path("_truth_objl.xml"), truth)
        listed, record = add_label_noise(
            truth.with_(extra={}),
            len(species),
            simulation.shape_zyx,
            config.label_noise,
            key=key,
            radii_vox=[entry.radius_vox for entry in species],
        )
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
            str(file.relative_to(out)): {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in written
        },
    }


def _write_volume(path: Path, data: np.ndarray, voxel_size_angstrom: float) -> None:
    """Write an MRC file without the time that mrcfile puts into its first label: same data, same bytes."""
    with atomic_path(path) as temporary:
        write_mrc(temporary, data, voxel_size_angstrom)
        with temporary.open("r+b") as stream:
            stream.seek(_FIRST_LABEL)
            stream.write(b"robpicker_jax simulation".ljust(80))


def _read_placement(placement: Placement, config: Config) -> Particles:
    labels = {species.name: k + 1 for k, species in enumerate(config.data.species)}
    particles = read_annotations(
        placement.path, voxel_size_angstrom=config.simulation.voxel_size_angstrom, class_labels=labels
    )
    names = [] if particles.tomograms is None else particles.tomograms.tolist()
    listed = sorted(set(names))
    if placement.tomogram is not None:
        if placement.tomogram not in listed:
            raise InputError(
                f"no particle of tomogram {placement.tomogram!r}",
                where=placement.path,
                fix=f"it lists {', '.join(listed) or 'no tomogram names'}",
            )
        particles = particles.select(np.array(names) == placement.tomogram)
    elif len(listed) > 1:
        raise InputError(f"lists several tomograms ({', '.join(listed)})", where=placement.path, fix="name one of them")
    last = np.array(config.simulation.shape_zyx[::-1]) - 1
    outside = ((particles.positions_vox < 0) | (particles.positions_vox > last)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        place = " ".join(f"{value:g}" for value in particles.positions_vox[first])
        raise InputError(
            f"{outside.sum()} particles lie outside the volume, the first at x y z = {place}",
            where=placement.path,
            fix="set simulation.shape_zyx to the size of that tomogram",
        )
    return particles


def _settings(config: Config, placements: Sequence[Placement]) -> dict[str, Any]:
    """All that the data depend on; input files count by content, not by place."""
    species = []
    for entry in config.data.species:
        fields = dataclasses.asdict(entry)
        fields.pop("min_cluster_vox")
        for kind in ("density", "mask"):
            fields[kind] = None if fields[kind] is None else _content(fields[kind])
        species.append(fields)
    settings = {
        "format": _FORMAT,
        "species": species,
        "simulation": dataclasses.asdict(config.simulation),
        "label_noise": dataclasses.asdict(config.label_noise),
    }
    if placements:
        for split in SPLITS:
            del settings["simulation"][split]  # type: ignore[attr-defined]
        settings["placements"] = [[p.split, p.tomogram, _content(p.path)] for p in placements]
    return dict(json.loads(json.dumps(settings)))  # tuples become lists, as in the file


def _content(path: str | Path) -> str:
    if not Path(path).is_file():
        raise InputError("no such file", where=path)
    return f"sha256:{_digest(Path(path))}"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_manifest(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a folder, a fresh one where there is none.

    Raises:
        InputError: it belongs to other settings, or the folder holds tomograms of another origin.
    """
    path = out / MANIFEST
    if not path.exists():
        foreign = sorted(file for split in SPLITS for file in out.glob(f"{split}/[!.]*"))
        if foreign:
            raise InputError(
                f"holds files but no {MANIFEST} ({foreign[0].name} …)", where=out, fix="use another folder"
            )
        packages = {name: metadata.version(name) for name in ("numpy", "scipy", "mrcfile")}
        versions = {"robpicker_jax": __version__, "python": platform.python_version(), **packages}
        return {"finished": False, "settings": settings, "versions": versions, "tomograms": {}}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["settings"]
        manifest["finished"], manifest["tomograms"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError("is no manifest of a simulation", where=path, fix="delete the folder") from None
    different = _differences(found, settings)
    if different:
        shown = ", ".join(different[:3]) + (" …" if len(different) > 3 else "")
        raise InputError(
            f"holds a data set simulated with other settings ({shown})",
            where=out,
            fix="use another folder, or delete this one",
        )
    return manifest


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _is_complete(out: Path, entry: dict[str, Any] | None) -> bool:
    if entry is None:
        return False
    files = [(out / name, facts["bytes"]) for name, facts in entry["files"].items()]
    return all(file.is_file() and file.stat().st_size == size for file, size in files)


def _differences(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two nested structures differ."""
    keys: Callable[[Any], list[Any]] | None = None
    if isinstance(one, dict) and isinstance(other, dict):
        keys = list
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        keys = lambda items: list(range(len(items)))  # noqa: E731
    if keys is None:
        return [] if one == other else [prefix.rstrip(".")]
    result: list[str] = []
    for key in dict.fromkeys([*keys(one), *keys(other)]):
        try:
            result += _differences(one[key], other[key], f"{prefix}{key}.")
        except KeyError:
            result.append(f"{prefix}{key}")
    return result
