"""What an averaging gives: maps, mask, FSC; and its iterations on disk, so that it can go on where it stopped."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.averaging.masks import ParticleMask, make_mask
from robpicker_jax.averaging.particle_set import ParticleSet
from robpicker_jax.averaging.refinement import Iteration, reference_mask
from robpicker_jax.averaging.resolution import (
    ShellCorrelation,
    figure_of_merit,
    masked_correlation,
    weighted_by_shell,
)
from robpicker_jax.averaging.settings import AveragingSettings
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, read_arrays

_COLUMNS = ("source", "listed_vox", "positions_vox", "rotations", "oriented", "half", "scores", "kept")


@dataclass(frozen=True, eq=False)
class AverageResult:
    """The final maps of one class.

    Attributes:
        average: of both halves, unfiltered, particle bright; float32 (edge, edge, edge).
        halves: of each half.
        filtered: the average times C_ref of each shell; no B-factor is applied, and nothing is mirrored.
        mask: made from the filtered average; its soft form within the soft ball that references are compared in.
        fsc: of the halves under the soft mask, corrected for it.
        particles: with their final poses.
    """

    average: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    filtered: np.ndarray
    mask: ParticleMask
    fsc: ShellCorrelation
    particles: ParticleSet

    @property
    def shown(self) -> np.ndarray:
        """The filtered map; where the halves agree in no shell, and it is flat, the average."""
        return self.filtered if figure_of_merit(self.fsc.corrected)[1:].any() else self.average


def finish(last: Iteration, settings: AveragingSettings, voxel_size_angstrom: float) -> AverageResult:
    """Maps, mask and FSC of the last iteration.

    Raises:
        InputError: no mask can be made of the average.
    """
    one, two = last.sums
    halves = one.average(settings.wiener), two.average(settings.wiener)
    average = (one + two).average(settings.wiener)
    merit = figure_of_merit(last.fsc.corrected)
    if not merit[1:].any():  # halves that do not agree anywhere still have an outline at the lowest frequencies
        merit[1:3] = 1
    mask = make_mask(
        weighted_by_shell(average, merit),
        voxel_size_angstrom,
        settings.radius_vox,
        threshold=settings.mask_threshold,
        dilation_vox=settings.dilation_vox,
        soft_edge_vox=settings.soft_edge_vox,
        molecular_weight_kda=settings.molecular_weight_kda,
    )
    # A mask wider than the box's reference would end at the taper with a sharp edge, which correlates the halves.
    mask = replace(mask, soft=mask.soft * reference_mask(settings))
    fsc = masked_correlation(halves[0], halves[1], voxel_size_angstrom, mask.soft, seed=settings.seed)
    filtered = weighted_by_shell(average, figure_of_merit(fsc.corrected))
    return AverageResult(average, halves, filtered, mask, fsc, last.particles)


def iteration_file(folder: Path, number: int) -> Path:
    """Where an iteration is kept."""
    return folder / f"iteration_{number:03d}.npz"


def save(iteration: Iteration, folder: Path) -> None:
    """Write an iteration; it appears whole or not at all."""
    values: dict[str, Any] = {name: getattr(iteration.particles, name) for name in _COLUMNS}
    for number, sums in enumerate(iteration.sums, start=1):
        values |= {f"signal{number}": sums.signal, f"weight{number}": sums.weight, f"count{number}": sums.count}
    fsc = iteration.fsc
    values |= {f"fsc_{name}": getattr(fsc, name) for name in ("unmasked", "masked", "randomised", "corrected")}
    values |= {
        "number": iteration.number,
        "power": iteration.power,
        "edge": fsc.edge,
        "voxel_size_angstrom": fsc.voxel_size_angstrom,
        "random_from": -1 if fsc.random_from is None else fsc.random_from,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)
    with atomic_path(iteration_file(folder, iteration.number)) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load(path: Path) -> Iteration:
    """Read an iteration.

    Raises:
        InputError: damaged.
    """
    try:
        values = read_arrays(path)
        edge = int(values["edge"])
        fsc = ShellCorrelation(
            edge,
            float(values["voxel_size_angstrom"]),
            unmasked=values["fsc_unmasked"],
            masked=values["fsc_masked"],
            randomised=values["fsc_randomised"],
            corrected=values["fsc_corrected"],
            random_from=None if values["random_from"] < 0 else int(values["random_from"]),
        )
        one, two = (
            Sums(edge, values[f"signal{number}"], values[f"weight{number}"], int(values[f"count{number}"]))
            for number in (1, 2)
        )
        particles = ParticleSet(**{name: values[name] for name in _COLUMNS})
        _check_shapes(particles, (one, two), values["power"], fsc)
        return Iteration(int(values["number"]), particles, (one, two), values["power"], fsc)
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # InputError is a ValueError
        reason = error.what if isinstance(error, InputError) else f"damaged ({type(error).__name__})"
        raise InputError(reason, where=path, fix="remove it; the averaging goes on from the one before") from None


def _check_shapes(particles: ParticleSet, sums: tuple[Sums, Sums], power: np.ndarray, fsc: ShellCorrelation) -> None:
    """ValueError where arrays are not as large as the others say."""
    n, shells = len(particles), fsc.edge // 2
    empty = Sums.empty(fsc.edge)
    expected = dict.fromkeys(_COLUMNS, (n,)) | {
        "listed_vox": (n, 3),
        "positions_vox": (n, 3),
        "rotations": (n, 3, 3),
    }
    found = {name: getattr(particles, name).shape for name in _COLUMNS}
    halves = [(half.signal.shape, half.weight.shape) for half in sums]
    if found != expected or halves != [(empty.signal.shape, empty.weight.shape)] * 2 or power.shape != (2, shells):
        raise ValueError("arrays of other shapes")


def last_iteration(folder: Path, most: int) -> Iteration | None:
    """The last iteration kept in a folder, none beyond `most`; None where there is none."""
    for number in range(most, -1, -1):
        if (path := iteration_file(folder, number)).is_file():
            return load(path)
    return None
