"""The files of one class's average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.averaging.resolution import ShellCorrelation
from robpicker_jax.averaging.results import AverageResult
from robpicker_jax.averaging.settings import AveragingSettings
from robpicker_jax.system.files import write_text
from robpicker_jax.volumes import write_mrc

SUMMARY = "average.json"
_MAPS = ("average", "half1", "half2", "filtered", "mask", "mask_soft")


def class_files(folder: Path) -> list[Path]:
    """The files of a class's average in its folder, without its lists of particles."""
    others = ("fsc.json", "fsc.csv", "fsc.png", "slices.png", SUMMARY)
    return [folder / name for name in (*(f"{name}.mrc" for name in _MAPS), *others)]


def write_maps(folder: Path, result: AverageResult, voxel_size_angstrom: float) -> None:
    """Write the maps and masks as MRC: average, half1, half2, filtered, mask (0 and 1), mask_soft."""
    maps = (result.average, *result.halves, result.filtered, result.mask.sharp, result.mask.soft)
    for name, data in zip(_MAPS, maps, strict=True):
        write_mrc(folder / f"{name}.mrc", data, voxel_size_angstrom)


def write_fsc(folder: Path, fsc: ShellCorrelation) -> None:
    """Write fsc.json and fsc.csv."""
    write_text(folder / "fsc.json", json.dumps(fsc.as_dict(), indent=1) + "\n")
    columns = [fsc.shells_angstrom(), fsc.corrected, fsc.unmasked, fsc.masked, fsc.randomised]
    lines = ["shell,resolution_angstrom,fsc,fsc_unmasked,fsc_masked,fsc_random_phases"]
    for shell, row in enumerate(zip(*columns, strict=True)):
        values = ["" if not np.isfinite(value) else f"{value:.6g}" for value in row]
        lines.append(",".join([str(shell), *values]))
    write_text(folder / "fsc.csv", "\n".join(lines) + "\n")


def summary(
    name: str,
    result: AverageResult,
    settings: AveragingSettings,
    voxel_size_angstrom: float,
    left_out: int,
    repeated: int,
) -> dict[str, Any]:
    """What average.json says of a class."""
    limits = result.fsc.as_dict()
    particles = result.particles
    return {
        "class": name,
        "particles": len(particles),
        "averaged": int(particles.kept.sum()),
        "left_out_at_the_edge": left_out,
        "left_out_as_repeats": repeated,
        "resolution_0.143_angstrom": limits["resolution_0.143_angstrom"],
        "resolution_0.5_angstrom": limits["resolution_0.5_angstrom"],
        "mean_score": None if np.isnan(particles.scores).all() else float(np.nanmean(particles.scores)),
        "mask": result.mask.as_dict(),
        "voxel_size_angstrom": voxel_size_angstrom,
        "settings": settings.as_dict(),
    }
