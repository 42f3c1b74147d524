"""One tomogram at a time: its header, its particles and what is measured in its voxels; whatever fails is a finding."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.bounds import FRACTIONS, in_mask, inside
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.datasets import TomogramFiles, load_mask, load_target
from robpicker_jax.datasets.pairing import DEFAULT_RULE
from robpicker_jax.datasets.particle_lists import read_list, unknown_lists
from robpicker_jax.diagnosis.findings import Finding, Severity
from robpicker_jax.diagnosis.hypotheses import (
    AS_IS,
    Hypothesis,
    Score,
    best_reading,
    score_readings,
)
from robpicker_jax.diagnosis.local_density import LocalDensity, block_mean
from robpicker_jax.diagnosis.spectra import log_power_spectrum
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import NO_ORIGIN, Origin, open_volume

# What reading a damaged file may raise; InputError is a ValueError.
BROKEN = (ValueError, OSError, EOFError, MemoryError, zlib.error)
_THUMBNAIL = 16
_MOST_FOR_PROFILE = 100
_CLEAR_SCORE = 5.0


@dataclass(frozen=True)
class Header:
    """Size, voxel size and origin of a volume that can be opened."""

    shape_zyx: tuple[int, int, int]
    voxel_size_zyx_angstrom: tuple[float, float, float] | None
    origin_angstrom: Origin = NO_ORIGIN

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Mean edge, None where the header does not know it."""
        sizes = self.voxel_size_zyx_angstrom
        return None if sizes is None else float(np.mean(sizes))

    @property
    def origin_vox(self) -> Origin:
        """The origin in voxels, 0 where the header does not know their size."""
        edge = self.voxel_size_angstrom
        if not edge:
            return NO_ORIGIN
        x, y, z = self.origin_angstrom
        return x / edge, y / edge, z / edge


@dataclass(frozen=True, eq=False)
class Profile:
    """Particles of one class in one tomogram, averaged: profile by distance, centre, and how many they are."""

    rings: np.ndarray
    centroid_vox: np.ndarray
    n: int


@dataclass(frozen=True, eq=False)
class Measures:
    """What was measured in a tomogram's voxels.

    Attributes:
        digest: hash of the volume averaged to about 16³ blocks.
        thumbnail: these blocks, without the means of planes, mean 0 and norm 1.
        spectrum: log10 of the radially averaged power spectrum.
        scores: score of each reading of the coordinates.
        reading: the one that fits clearly better than the file as it is, if any.
        profiles: class label → averaged particles, under the best reading.
        outside_mask: number of particles outside the mask.
    """

    digest: str
    thumbnail: np.ndarray
    spectrum: np.ndarray
    scores: Mapping[str, Score]
    reading: Hypothesis | None
    profiles: Mapping[int, Profile]
    outside_mask: int = 0


@dataclass(frozen=True, eq=False)
class Observation:
    """One tomogram as far as it could be read.

    Attributes:
        tomogram: its files.
        header: size and voxel size; None where the volume cannot be opened.
        particles: its list; None where there is none or it cannot be read.
        measures: what was measured in its voxels; None before, or where they cannot be read.
    """

    tomogram: TomogramFiles
    header: Header | None = None
    particles: Particles | None = None
    measures: Measures | None = None

    @property
    def name(self) -> str:
        """`split/name`."""
        return f"{self.tomogram.split}/{self.tomogram.name}"


def read_header(tomogram: TomogramFiles) -> tuple[Observation, list[Finding]]:
    """Open a tomogram's volume for its size and voxel size."""
    try:
        with gathered_notes() as notes, open_volume(tomogram.volume_path) as reader:
            found = Observation(
                tomogram, Header(reader.shape_zyx, reader.voxel_size_zyx_angstrom, reader.origin_angstrom)
            )
    except BROKEN as error:
        return Observation(tomogram), [unreadable("unreadable_volume", tomogram, error)]
    return found, noted("assumed", found, notes)


def read_particles(
    observation: Observation,
    class_labels: Mapping[str, int],
    voxel_size_angstrom: float | None,
    options: Mapping[str, Any] | None = None,
    rule: NameRule = DEFAULT_RULE,
) -> tuple[Observation, list[Finding]]:
    """Add the tomogram's particles, of any class and position, even outside the volume."""
    tomogram, header = observation.tomogram, observation.header
    needed = tomogram.split in ("train", "meta")
    if not tomogram.lists(list(class_labels)):
        if not needed:
            return observation, []
        fix = f"put {tomogram.name}_objl.xml (or .star, .csv, …) beside it or into data.lists, or take it for test"
        what = f"{observation.name} has no particle list{unknown_lists(tomogram)}"
        return observation, [Finding("error", "no_annotations", what, fix, (observation.name,))]
    voxel_size = voxel_size_angstrom or (header.voxel_size_angstrom if header else None)
    try:
        with gathered_notes() as notes:
            particles = read_list(
                tomogram,
                voxel_size_angstrom=voxel_size,
                shape_zyx=header.shape_zyx if header else None,
                class_labels=class_labels,
                volume_origin_angstrom=header.origin_angstrom if header else None,
                options=options,
                rule=rule,
            )
    except BROKEN as error:
        return observation, [unreadable("unreadable_annotations", tomogram, error)]
    if not len(particles) and tomogram.split == "meta":
        what = f"the list of {observation.name} holds no particles"
        fix = "a meta tomogram steers the training: take one with particles"
        files = ", ".join(str(path) for _, path in tomogram.lists(list(class_labels)))
        return observation, [Finding("error", "no_annotations", what, fix, (observation.name,), {"file": files})]
    fractions = [note for note in notes if FRACTIONS in note]
    findings = noted("fractions", observation, fractions, "error")
    findings += noted("assumed", observation, [note for note in notes if note not in fractions])
    return replace(observation, particles=particles), findings


def measure(
    observation: Observation, radii_vox: Mapping[int, float], hypotheses: Sequence[Hypothesis]
) -> tuple[Observation, list[Finding]]:
    """Read the voxels and measure all that the checks need of them."""
    tomogram, header, particles = observation.tomogram, observation.header, observation.particles
    if header is None:
        return observation, []
    findings = []
    try:
        with gathered_notes(), open_volume(tomogram.volume_path) as reader:  # `read_header` has reported the notes
            density = reader.read(check=False)
    except BROKEN as error:
        return observation, [unreadable("unreadable_volume", tomogram, error)]
    bad = int(density.size - np.count_nonzero(np.isfinite(density)))
    low, high = float(density.min()), float(density.max())
    if bad or not high > low:
        what = f"{bad} of {density.size} voxels are NaN or infinite" if bad else f"all voxels are {low:g}"
        fix = "replace them by the volume's mean" if bad else "the reconstruction is empty: copy or make it again"
        finding = Finding("error", "bad_voxels", f"{observation.name}: {what}", fix, (observation.name,), {"bad": bad})
        return observation, [finding]
    mask = None
    try:
        with gathered_notes() as notes:
            mask = load_mask(tomogram, header.shape_zyx)
        findings += noted("mask", observation, notes)
    except BROKEN as error:
        findings.append(unreadable("bad_label_map", tomogram, error))
    digest, thumbnail = _thumbnail(density)
    local = LocalDensity(density, mask)
    scores: dict[str, Score] = {}
    reading, profiles, beside = None, {}, 0
    if particles is not None and len(particles):
        scores = score_readings(local, particles, radii_vox, hypotheses, header.origin_vox)
        reading = best_reading(scores, hypotheses)
        profiles = _profiles(local, particles, radii_vox, scores, reading or hypotheses[0], header.origin_vox)
        beside = 0 if mask is None else _outside_mask(particles, mask)
    spectrum = log_power_spectrum(density)
    measures = Measures(digest, thumbnail, spectrum, scores, reading, profiles, beside)
    return replace(observation, measures=measures), findings


def check_label_map(observation: Observation, n_species: int) -> list[Finding]:
    """A stored label map that training would use: there, of the right size, of known classes."""
    if observation.header is None:
        return []
    try:
        load_target(observation.tomogram, n_species, observation.header.shape_zyx)
    except BROKEN as error:
        return [unreadable("bad_label_map", observation.tomogram, error)]
    return []


def noted(code: str, observation: Observation, notes: Sequence[str], severity: Severity = "warning") -> list[Finding]:
    """The findings that the notes of a file amount to."""
    fix = {
        "fractions": "convert the list once with --volume (robpicker convert), so that every program reads voxels",
        "mask": "make the mask again: 0 where there is no sample, 1 where there is",
        "assumed": "if that is wrong, correct the file or say it in the configuration",
    }[code]
    return [Finding(severity, code, note, fix, (observation.name,)) for note in notes]


def unreadable(code: str, tomogram: TomogramFiles, error: BaseException) -> Finding:
    """The finding that an exception amounts to."""
    where = f"{tomogram.split}/{tomogram.name}"
    if isinstance(error, InputError):
        at = f"{error.where}: " if error.where else ""
        fix = error.fix or "copy or make the file again"
        return Finding("error", code, f"{at}{error.what}", fix, (where,))
    what = f"{where}: {type(error).__name__}: {error}"[:300]
    return Finding("error", code, what, "copy or make the file again", (where,))


def _thumbnail(density: np.ndarray) -> tuple[str, np.ndarray]:
    depth, height, width = (max(1, size // _THUMBNAIL) for size in density.shape)
    blocks = block_mean(density, (depth, height, width)).astype(np.float64)
    # Bytes of the stored type would differ between copies in another mode; six digits of the blocks do not.
    scale = float(np.abs(blocks).max()) or 1.0
    shape = np.array(density.shape, np.int64)
    digest = hashlib.sha256(shape.tobytes() + np.rint(1e5 * blocks / scale).astype(np.int64).tobytes()).hexdigest()
    for axis in range(3):  # what all tomograms share: ice above and below, fading edges
        others = tuple(other for other in range(3) if other != axis)
        blocks -= blocks.mean(axis=others, keepdims=True)
    return digest, blocks / (float(np.linalg.norm(blocks)) or 1.0)


def _profiles(
    local: LocalDensity,
    particles: Particles,
    radii_vox: Mapping[int, float],
    scores: Mapping[str, Score],
    reading: Hypothesis,
    origin_vox: Sequence[float],
) -> dict[int, Profile]:
    depth, height, width = local.shape_zyx
    positions = reading.apply(particles.positions_vox, (depth, height, width), origin_vox)
    ok = inside(positions, (depth, height, width))
    z = scores[reading.name].z if reading.name in scores else scores[AS_IS].z
    found: dict[int, Profile] = {}
    if abs(z) < _CLEAR_SCORE:  # what is not seen has no size
        return found
    sign = 1.0 if z >= 0 else -1.0
    for label, radius in radii_vox.items():
        mine = positions[ok & (particles.labels == label)]
        if len(mine) < 3:
            continue
        mine = mine[np.random.default_rng(label).permutation(len(mine))[:_MOST_FOR_PROFILE]]
        centroid = local.centroid(mine, radius, sign)
        found[label] = Profile(sign * local.profile(mine, radius), centroid, len(mine))
    return found


def _outside_mask(particles: Particles, mask: np.ndarray) -> int:
    ok = inside(particles.positions_vox, (mask.shape[0], mask.shape[1], mask.shape[2]))
    return int(np.count_nonzero(ok & ~in_mask(particles.positions_vox, mask)))
