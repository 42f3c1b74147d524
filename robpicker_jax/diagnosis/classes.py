"""Classes and sizes: counts, names, duplicates, overlaps, radii against what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.diagnosis.findings import Finding, names
from robpicker_jax.diagnosis.local_density import DIRECTIONS, REACH, RINGS, sampled_radius
from robpicker_jax.diagnosis.observation import Observation, Profile

_RARE = {"train": 10, "meta": 5}
_DUPLICATE_VOX = 0.5
_OVERLAP = 0.6  # of the sum of two radii: surfaces of round particles that touch are at 1
_OVERLAP_SHARE = 0.05
_RADIUS_RANGE = (0.5, 1.75)
_CLEAR = 6.0


@dataclass(frozen=True)
class Kind:
    """A species as the checks need it.

    Attributes:
        name: its name.
        label: its class label.
        radius_vox: its radius; a guess where `known` is False.
        known: whether a configuration says so.
    """

    name: str
    label: int
    radius_vox: float
    known: bool = True


def count_classes(observations: Sequence[Observation], kinds: Sequence[Kind]) -> dict[str, dict[str, int]]:
    """split → species → particles."""
    counts: dict[str, dict[str, int]] = {}
    for observation in observations:
        if observation.particles is None:
            continue
        row = counts.setdefault(observation.tomogram.split, {kind.name: 0 for kind in kinds})
        for kind in kinds:
            row[kind.name] += int(np.count_nonzero(observation.particles.labels == kind.label))
    return counts


def check_counts(counts: Mapping[str, Mapping[str, int]], kinds: Sequence[Kind]) -> list[Finding]:
    """Every species has particles enough in train and meta."""
    findings = []
    for split, few in _RARE.items():
        if split not in counts:
            continue
        for kind in kinds:
            n = counts[split][kind.name]
            if n == 0:
                why = "cannot be learnt" if split == "train" else "gets no clean example"
                what = f"no {kind.name} in {split}: it {why}"
                fix = f"annotate some in {split}/, or take it out of data.species"
                findings.append(Finding("error", "class_missing", what, fix, (split,), {"label": kind.label}))
            elif n < few:
                what = f"only {n} {kind.name} in {split}"
                fix = f"annotate {few} or more" + (": meta steers the training" if split == "meta" else "")
                findings.append(Finding("warning", "class_rare", what, fix, (split,), {"count": n, "recommended": few}))
    if counts:
        text = "; ".join(f"{split}: " + ", ".join(f"{n} {k}" for k, n in row.items()) for split, row in counts.items())
        findings.append(Finding("info", "class_counts", f"particles in {text}", "", (), {"counts": counts}))
    return findings


def check_labels(observations: Sequence[Observation], kinds: Sequence[Kind]) -> list[Finding]:
    """Every particle's class is a species, and its name agrees with its label."""
    findings = []
    labels = {kind.name: kind.label for kind in kinds}
    for observation in observations:
        particles = observation.particles
        if particles is None:
            continue
        unknown = ~np.isin(particles.labels, list(labels.values()))
        if unknown.any():
            which = sorted({_class_of(particles, int(i)) for i in np.flatnonzero(unknown)})
            findings.append(
                Finding(
                    "error",
                    "class_unknown",
                    f"{observation.name}: {np.count_nonzero(unknown)} particles of class {names(which, 5)}, "
                    "which data.species does not have",
                    "add the species to data.species, in the order of their labels, or correct the file",
                    (observation.name,),
                    {"classes": which, "count": int(np.count_nonzero(unknown)), "species": labels},
                )
            )
        elif particles.class_names is not None:
            expected = np.array([labels.get(str(name), -1) for name in particles.class_names])
            wrong = (expected > 0) & (expected != particles.labels)
            if wrong.any():
                i = int(np.flatnonzero(wrong)[0])
                what = (
                    f"{observation.name}: a particle named {particles.class_names[i]} has label {particles.labels[i]}"
                )
                fix = f"order data.species as the file's labels do ({particles.class_names[i]} is {expected[i]} there)"
                evidence = {"count": int(wrong.sum()), "species": labels}
                findings.append(Finding("error", "class_order", what, fix, (observation.name,), evidence))
    return findings


def _class_of(particles: Particles, i: int) -> str:
    label = int(particles.labels[i])
    if label == 0 and particles.class_names is not None and particles.class_names[i]:
        return str(particles.class_names[i])
    return str(label) if label else "none"


def check_distances(observations: Sequence[Observation], kinds: Sequence[Kind]) -> list[Finding]:
    """Particles listed twice, and particles closer than their radii allow."""
    from scipy.spatial import cKDTree

    twice: dict[str, int] = {}
    close: dict[str, float] = {}
    radius_of = {kind.label: kind.radius_vox for kind in kinds if kind.known}
    for observation in observations:
        particles = observation.particles
        if particles is None or len(particles) < 2:
            continue
        tree = cKDTree(particles.positions_vox)
        pairs = tree.query_pairs(_DUPLICATE_VOX, output_type="ndarray")
        if len(pairs):
            twice[observation.name] = len(np.unique(pairs[:, 1]))
        if not radius_of:
            continue
        radii = np.array([radius_of.get(int(label), 0.0) for label in particles.labels])
        pairs = tree.query_pairs(2 * _OVERLAP * max(radius_of.values()), output_type="ndarray")
        gaps = np.linalg.norm(np.diff(particles.positions_vox[pairs], axis=1)[:, 0], axis=1)
        near = (gaps > _DUPLICATE_VOX) & (gaps < _OVERLAP * radii[pairs].sum(axis=1))
        share = len(np.unique(pairs[near])) / len(particles)
        if share > _OVERLAP_SHARE:
            close[observation.name] = share
    findings = []
    if twice:
        where = tuple(twice)
        what = f"{sum(twice.values())} particles lie within {_DUPLICATE_VOX} voxels of another one ({names(where)})"
        fix = "remove the second of each: they count twice in sampling and evaluation"
        findings.append(Finding("warning", "duplicates", what, fix, where, {"duplicates": twice}))
    if close:
        where, most = tuple(close), max(close.values())
        what = (
            f"up to {most:.0%} of the particles are closer than {_OVERLAP} of the sum of their radii ({names(where)})"
        )
        fix = "check the radii (too large?) and repeated picks of one particle: their labels merge"
        findings.append(Finding("warning", "overlaps", what, fix, where, {"share": close, "limit": _OVERLAP_SHARE}))
    return findings


def check_sizes(
    observations: Sequence[Observation], kinds: Sequence[Kind], voxel_size_angstrom: float | None = None
) -> list[Finding]:
    """Radii against the radial profile of the averaged particles, and their centres against the picks."""
    findings = []
    for kind in kinds:
        profiles = [
            o.measures.profiles[kind.label] for o in observations if o.measures and kind.label in o.measures.profiles
        ]
        if not profiles:
            continue
        n = sum(profile.n for profile in profiles)
        seen = seen_radius(_average(profiles), kind.radius_vox, n)
        if seen is None:
            continue
        radius, clarity = seen
        ratio = radius / kind.radius_vox
        evidence = {"radius_vox": kind.radius_vox, "seen_vox": radius, "particles": n, "clarity": clarity}
        if kind.known and not _RADIUS_RANGE[0] <= ratio <= _RADIUS_RANGE[1]:
            what, fix = (
                f"the radius of {kind.name} is {kind.radius_vox:g} voxels",
                f"set radius_vox to about {radius:.0f}",
            )
            seen_as = f"{radius:.1f}"
            if size := voxel_size_angstrom:
                what = f"the radius of {kind.name} is {kind.radius_vox * size:.0f} Å ({kind.radius_vox:.3g} voxels)"
                seen_as = f"{radius * size:.0f} Å ({radius:.1f})"
                fix = f"set radius_angstrom to about {radius * size:.0f}"
            what += f", but the averaged particle's is {seen_as}"
            findings.append(Finding("warning", "radius", what, fix, (), evidence))
        elif radius <= kind.radius_vox * _RADIUS_RANGE[1]:
            centre = np.sum([profile.n * profile.centroid_vox for profile in profiles], axis=0) / n
            distance = float(np.linalg.norm(centre))
            if distance > max(1.5, 0.35 * kind.radius_vox):
                x, y, z = centre
                what = f"the picks of {kind.name} lie {distance:.1f} voxels beside the particles' centres"
                fix = f"add {x:.1f} {y:.1f} {z:.1f} to x y z; an origin, a crop or a centre rule is off"
                offset = {"offset_xyz_vox": centre, "particles": n}
                findings.append(Finding("warning", "centre_offset", what, fix, (), offset))
    return findings


def _average(profiles: Sequence[Profile]) -> np.ndarray:
    total: np.ndarray = sum((profile.n * profile.rings for profile in profiles), np.zeros(RINGS))
    return total / sum(profile.n for profile in profiles)


def seen_radius(rings: np.ndarray, radius_vox: float, n: int) -> tuple[float, float] | None:
    """Radius of the averaged particle and how clearly it stands out; None where it does not.

    The radius is where the profile, going outwards from its peak, falls below half of the peak's height above the
    surroundings (the last quarter of the profile). Neighbouring rings share voxels, so that those of the last quarter
    alone can look calmer than they are: the error of a ring is taken to be at least
    that of white noise averaged over n particles.
    """
    smooth = np.convolve(np.pad(rings, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    far = smooth[3 * RINGS // 4 :]
    base = float(np.median(far))
    noise = max(1.4826 * float(np.median(np.abs(far - base))), float(far.std(ddof=1)), (n * DIRECTIONS) ** -0.5)
    errors = noise * _relative_error(radius_vox)
    peak = int(np.argmax(((smooth - base) / errors)[: 3 * RINGS // 4]))
    height = float(smooth[peak]) - base
    clarity = height / float(errors[peak])
    if clarity < _CLEAR:
        return None
    half = base + height / 2
    outer = peak
    while outer + 1 < RINGS and smooth[outer + 1] >= half:
        outer += 1
    if outer + 1 == RINGS:
        return None
    fraction = (smooth[outer] - half) / max(smooth[outer] - smooth[outer + 1], 1e-12)
    return float((outer + fraction) * REACH * radius_vox / (RINGS - 1)), clarity


def _relative_error(radius_vox: float) -> np.ndarray:
    """Error of each ring of a profile relative to the outermost: near the centre, directions share their voxels."""
    voxels = 4 * np.pi * (REACH * sampled_radius(radius_vox) * np.arange(RINGS) / (RINGS - 1)) ** 2
    return np.asarray(np.sqrt(DIRECTIONS / np.clip(voxels, 1, DIRECTIONS)))
