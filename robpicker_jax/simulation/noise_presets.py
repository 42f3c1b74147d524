"""Rates of annotation errors for each species, and presets with the structure of errors that real annotations have.

A preset fills in what the configuration leaves open; a rate that the configuration states always wins. Figures of
`template_matching` were measured on the public candidate lists of template matching on a *S. pombe* tomogram
(EMPIAR-10988, 13.48 Å voxels) against its 1,646 expert ribosomes: at as many picks as particles, 38 % are missed (50 %
of those with a neighbour nearer than 1.25 diameters), as many picks are false, of which 60 % lie far from any particle
on spots of high contrast and 20 % between particles, and picks are off by 24 Å in the plane and 48 Å along z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robpicker_jax.config import LabelNoiseConfig, Species
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class NoiseRates:
    """How often each kind of error happens, class by class; arrays have one entry a species.

    Attributes:
        missing: share of particles that are not annotated.
        crowded_missing: the same for particles with a neighbour nearer than `crowded_diameters` of their own diameters.
        crowded_diameters: see there.
        swap: share of annotated particles that get another class.
        swap_to: the class they get, from 1; 0 draws any other class uniformly.
        jitter_vox: standard deviations (x, y, z) of the position error, voxels.
        false_picks: false picks, as a share of all true particles.
        false_classes: probability that a false pick gets each class.
        false_on_contrast: share of the false picks that lie on spots of high contrast (gold beads, where there are any).
        false_between: share of the false picks that lie between particles, closer than two radii to one.
    """

    missing: np.ndarray
    crowded_missing: np.ndarray
    crowded_diameters: float
    swap: np.ndarray
    swap_to: np.ndarray
    jitter_vox: tuple[float, float, float]
    false_picks: float
    false_classes: np.ndarray
    false_on_contrast: float
    false_between: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


Preset = Callable[[Sequence[float], float], Mapping[str, Any]]
"""`(radius of each species in voxels, voxel size in Å) -> fields of NoiseRates`, shares as one number or one a species."""


def no_errors(radii_vox: Sequence[float], voxel_size_angstrom: float) -> Mapping[str, Any]:
    """Only what the configuration states."""
    return {}


def template_matching(radii_vox: Sequence[float], voxel_size_angstrom: float) -> Mapping[str, Any]:
    """The best-scored candidates of template matching, as many as there are particles."""
    plane = 24.0 / voxel_size_angstrom
    return {
        "missing": 0.36,
        "crowded_missing": 0.50,
        "false_picks": 0.38,
        "false_on_contrast": 0.6,
        "false_between": 0.2,
        "jitter_vox": (plane, plane, 2 * plane),
    }


def spheres(radii_vox: Sequence[float], voxel_size_angstrom: float) -> Mapping[str, Any]:
    """Every particle is annotated, at its nearest voxel or the next one; the labels' only fault is that they are balls."""
    return {"jitter_vox": (0.5, 0.5, 0.5)}


def non_exhaustive(radii_vox: Sequence[float], voxel_size_angstrom: float) -> Mapping[str, Any]:
    """Picking that stopped early: two thirds of the smaller half of the species are missing, a tenth of the others."""
    radii = np.asarray(radii_vox, float)
    small = radii <= np.median(radii)
    if len(radii) > 1 and small.all():
        small = radii < radii.max()
    return {"missing": np.where(small, 0.66, 0.1), "jitter_vox": (0.5, 0.5, 0.5)}


def look_alikes(radii_vox: Sequence[float], voxel_size_angstrom: float) -> Mapping[str, Any]:
    """Of every two species nearest in size, 60 % of the smaller one's particles carry the larger one's class."""
    radii = np.asarray(radii_vox, float)
    swap, swap_to = np.zeros(len(radii)), np.zeros(len(radii), int)
    order = np.argsort(-radii, kind="stable")
    for larger, smaller in zip(order[::2], order[1::2], strict=False):
        swap[smaller], swap_to[smaller] = 0.6, larger + 1
    return {"swap": swap, "swap_to": swap_to, "missing": 0.1, "jitter_vox": (0.5, 0.5, 0.5)}


PRESETS: dict[str, Preset] = {
    "none": no_errors,
    "template_matching": template_matching,
    "spheres": spheres,
    "non_exhaustive": non_exhaustive,
    "look_alikes": look_alikes,
}
"""Presets of `label_noise.preset`, by name."""


def noise_rates(config: LabelNoiseConfig, species: Sequence[Species], voxel_size_angstrom: float) -> NoiseRates:
    """The rates of a configuration: its own, and its preset's where it states none.

    Raises:
        InputError: an unknown preset or species, or a swap where there is one species only.
    """
    if config.preset not in PRESETS:
        raise InputError(
            f"unknown preset {config.preset!r}", where="label_noise.preset", fix=f"one of {', '.join(PRESETS)}"
        )
    names = [entry.name for entry in species]
    preset = dict(PRESETS[config.preset]([entry.radius_vox for entry in species], voxel_size_angstrom))

    def chosen(field: str, default: Any) -> Any:
        stated = getattr(config, field)
        return preset.get(field, default) if stated is None else stated

    missing = _by_species("missing", chosen("missing", 0.0), names, preset.get("missing", 0.0))
    # A stated rate of missing particles stands for the crowded ones too, unless theirs is stated.
    fallback = missing if config.missing is not None else preset.get("crowded_missing", missing)
    stated = config.crowded_missing
    crowded = _by_species("crowded_missing", fallback if stated is None else stated, names, fallback)
    swap = _by_species("swap", chosen("swap", 0.0), names, preset.get("swap", 0.0))
    if (swap > 0).any() and len(names) < 2:
        raise InputError("there is one class only", where="label_noise.swap", fix="set it to 0")
    swap_to = np.array(preset.get("swap_to", np.zeros(len(names), int)))
    for name, other in config.swap_to.items():
        _check_name("swap_to", name, names)
        _check_name("swap_to", other, names)
        if name == other:
            raise InputError(f"{name} cannot be mistaken for itself", where=f"label_noise.swap_to.{name}")
        swap_to[names.index(name)] = names.index(other) + 1
    plane = config.jitter_vox
    jitter = tuple(preset.get("jitter_vox", (0.0, 0.0, 0.0))) if plane is None else (plane, plane, plane)
    if config.jitter_z_vox is not None:
        jitter = (jitter[0], jitter[1], config.jitter_z_vox)
    return NoiseRates(
        missing=missing,
        crowded_missing=crowded,
        crowded_diameters=config.crowded_diameters,
        swap=swap,
        swap_to=swap_to,
        jitter_vox=jitter,
        false_picks=float(chosen("false_picks", 0.0)),
        false_classes=_false_classes(config.false_classes, names),
        false_on_contrast=float(chosen("false_on_contrast", 0.0)),
        false_between=float(chosen("false_between", 0.0)),
    )


def _false_classes(stated: Mapping[str, float] | None, names: Sequence[str]) -> np.ndarray:
    """Probabilities of the classes of false picks; all alike where none are stated."""
    weights = np.ones(len(names)) if stated is None else _by_species("false_classes", stated, names, 0.0)
    if not weights.sum():
        raise InputError("all species are 0", where="label_noise.false_classes", fix="give one a larger number")
    return np.asarray(weights / weights.sum())


def _by_species(field: str, value: Any, names: Sequence[str], default: Any) -> np.ndarray:
    """One number a species from one for all, one a species, or a mapping name → number with `default` for the rest."""
    if not isinstance(value, Mapping):
        return np.broadcast_to(np.asarray(value, float), (len(names),)).copy()
    rates = np.broadcast_to(np.asarray(default, float), (len(names),)).copy()
    for name, rate in value.items():
        _check_name(field, name, names)
        rates[names.index(name)] = rate
    return rates


def _check_name(field: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise InputError(
            f"no species is named {name!r}", where=f"label_noise.{field}", fix=f"one of {', '.join(names)}"
        )
