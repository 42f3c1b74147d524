"""Which species there are, in the order of their labels, and their radii: as given, or as the doctor sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robpicker_jax.annotations.bounds import inside
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import ALL_CLASSES, DataConfig, Species
from robpicker_jax.datasets import TomogramFiles, load_mask
from robpicker_jax.diagnosis.classes import seen_radius
from robpicker_jax.diagnosis.diagnose import listed_classes
from robpicker_jax.diagnosis.local_density import LocalDensity
from robpicker_jax.diagnosis.observation import Observation, read_header, read_particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import open_volume

_USUAL_ANGSTROM = (35.0, 55.0, 80.0, 120.0, 170.0)
_GUESS_ANGSTROM = 100.0
_LEAST_VOX, _MOST_VOX = 2.5, 25.0
_FEWEST, _MOST_LOOKED_AT = 3, 200
_CLEAR_SCORE = 4.0


@dataclass(frozen=True)
class Proposed:
    """A species.

    Attributes:
        name: as lists call it.
        radius_angstrom: its radius.
        how: where the radius is from, in words.
    """

    name: str
    radius_angstrom: float
    how: str


def parsed(text: str | None) -> dict[str, float | None]:
    """`ribosome:150,p97` as name → radius in Å, None where none is given.

    Raises:
        InputError: a radius that is no positive number, or a name twice.
    """
    found: dict[str, float | None] = {}
    for part in (text or "").split(","):
        name, colon, radius = part.strip().rpartition(":") if ":" in part else (part.strip(), "", "")
        if not name:
            continue
        try:
            value = float(radius) if colon else None
        except ValueError:
            value = -1.0
        if name in found or (value is not None and not 0 < value < 1e5):
            raise InputError(
                f"{part.strip()!r} is not NAME:RADIUS", where="--species", fix="such as ribosome:150,p97:65"
            )
        found[name] = value
    return found


def observed(
    tomograms: Sequence[TomogramFiles], data: DataConfig, names: Sequence[str], voxel_size: float
) -> tuple[list[Observation], list[str]]:
    """Every tomogram with its particles, and the species that these are of.

    Args:
        tomograms: the tomograms with their lists.
        data: how lists are read.
        names: the species, where the user or the project names them.
        voxel_size: Å.

    Raises:
        InputError: a list that cannot be read, or one of a class that is not among the names.
    """
    observations = [read_header(files)[0] for files in tomograms]
    by_class = [name for name in data.lists if name != ALL_CLASSES] if isinstance(data.lists, Mapping) else []
    classes = list(names) or by_class or listed_classes(observations)
    found = _read(observations, data, classes, voxel_size)
    told: dict[int, str] = {}
    for observation in found:
        particles = observation.particles
        if particles is None or not len(particles):
            continue
        names_ = particles.class_names if particles.class_names is not None else [""] * len(particles)
        for label, name in zip(particles.labels.tolist(), names_, strict=True):
            told[int(label)] = told.get(int(label)) or str(name)
    unnamed = 0 in told
    if not classes:
        if unnamed and len(told) == 1 and told[0]:  # names without labels
            lists = [o.particles.class_names for o in found if o.particles is not None]
            classes = sorted({str(name) for named in lists if named is not None for name in named} - {""})
            found = _read(observations, data, classes, voxel_size)
        else:
            classes = [told.get(label) or f"class_{label}" for label in range(1, max(told, default=0) + 1)]
            classes = classes or ["particle"]
    elif (strange := [name or f"label {label}" for label, name in told.items() if label > len(classes)]) or (
        unnamed and told[0] and len(classes) > 1 and (strange := [told[0]])
    ):
        raise InputError(
            f"the lists hold {', '.join(strange)} too",
            where="--species",
            fix="name all species, in the order of their labels",
        )
    return [_labelled(observation, len(classes)) for observation in found], classes


def _read(
    observations: Sequence[Observation], data: DataConfig, classes: Sequence[str], voxel_size: float
) -> list[Observation]:
    rule = NameRule.of(data.name_pattern, "data.name_pattern")
    labels = {name: number for number, name in enumerate(classes, start=1)}
    found = []
    for observation in observations:
        if not observation.tomogram.lists(classes):
            found.append(observation)
            continue
        read, findings = read_particles(observation, labels, voxel_size, data.annotation_options, rule)
        if errors := [finding for finding in findings if finding.severity == "error"]:
            raise InputError(errors[0].what, fix=errors[0].fix)
        found.append(read)
    return found


def _labelled(observation: Observation, n_species: int) -> Observation:
    """Labels where a list gives none, and there is one species alone."""
    particles = observation.particles
    if particles is None or n_species != 1 or particles.labels.any():
        return observation
    return replace(observation, particles=particles.with_(labels=np.ones(len(particles), np.int32)))


def with_radii(
    observations: Sequence[Observation], classes: Sequence[str], given: Mapping[str, float | None], voxel_size: float
) -> tuple[list[Proposed], list[float]]:
    """The species with their radii, and how well each tomogram's list fits its density (the doctor's score).

    A radius that is not given is looked for as the doctor does (`diagnosis.classes.seen_radius`): in the profile of the
    averaged particle, taken at that of some usual radii at which picks differ most from random positions. Where nothing
    is seen, a usual one stays, and that is said.
    """
    labels = range(1, len(classes) + 1)
    usual = np.unique(np.clip(np.array(_USUAL_ANGSTROM) / voxel_size, _LEAST_VOX, _MOST_VOX)).tolist()
    radii = {k: [r / voxel_size] if (r := given.get(name)) else usual for k, name in zip(labels, classes, strict=True)}
    contrasts = [_contrasts(observation, radii) for observation in observations]
    found, chosen = [], {}
    for label, name in zip(labels, classes, strict=True):
        pooled = {r: _together([c[label, r] for c in contrasts if (label, r) in c]) for r in radii[label]}
        best = max(radii[label], key=lambda r: abs(_score(pooled[r])))
        chosen[label] = best
        if radius := given.get(name):
            found.append(Proposed(name, radius, "as given"))
            continue
        sign, n = np.sign(pooled[best].sum()), len(pooled[best])
        profiles = [c[label, best].profile for c in contrasts if (label, best) in c]
        weights = [len(c[label, best].contrast) for c in contrasts if (label, best) in c]
        seen = None
        if n >= _FEWEST and abs(_score(pooled[best])) >= _CLEAR_SCORE:
            seen = seen_radius(sign * np.average(profiles, axis=0, weights=weights), best, n)
        if seen is None:
            found.append(Proposed(name, _GUESS_ANGSTROM, "a guess: too little is seen of it, so give its true radius"))
        else:
            radius = float(round(max(1.0, seen[0]) * voxel_size))
            found.append(Proposed(name, radius, f"a guess: as seen in the average of {n} particles"))
    at_best = [[c[k, chosen[k]] for k in labels if (k, chosen[k]) in c] for c in contrasts]
    return found, [abs(_score(_together(parts))) for parts in at_best]


@dataclass(frozen=True)
class _Contrast:
    """What picks of one class and one radius show in a tomogram: contrast of each, and their average's profile."""

    contrast: np.ndarray
    profile: np.ndarray


def _contrasts(
    observation: Observation, radii_vox: Mapping[int, Sequence[float]]
) -> dict[tuple[int, float], _Contrast]:
    particles = observation.particles
    if particles is None or not len(particles):
        return {}
    with gathered_notes(), open_volume(observation.tomogram.volume_path) as reader:
        density = reader.read(check=False)
        mask = load_mask(observation.tomogram, reader.shape_zyx)
    local = LocalDensity(density, mask)
    found = {}
    for label, radii in radii_vox.items():
        mine = particles.positions_vox[(particles.labels == label) & inside(particles.positions_vox, density.shape)]
        mine = mine[np.random.default_rng(label).permutation(len(mine))[:_MOST_LOOKED_AT]]
        for radius in radii if len(mine) else ():
            found[label, radius] = _Contrast(local.standard_contrast(mine, radius), local.profile(mine, radius))
    return found


def _together(parts: Sequence[_Contrast]) -> np.ndarray:
    return np.concatenate([part.contrast for part in parts]) if parts else np.zeros(0)


def _score(contrast: np.ndarray) -> float:
    """The doctor's score: mean contrast times the square root of the number of picks."""
    return float(np.mean(contrast) * len(contrast) ** 0.5) if len(contrast) else 0.0


def as_section(species: Sequence[Proposed], voxel_size: float) -> tuple[Species, ...]:
    """The species as the configuration has them."""
    return tuple(Species(entry.name, entry.radius_angstrom / voxel_size) for entry in species)
