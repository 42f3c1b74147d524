"""Template matching: exact search, the cascade, and pytme's exhaustive search on one simulated tomogram.

All run on one volume with one template, mask and list of rotations, in this process or, for pytme, in the
interpreter that the environment variable PYTME_PYTHON names; a virtual environment of its own, in which
`pip install pytme` was run. pytme gets no wedge, which saves it a product for each rotation. None pads the volume. Times of
the exact searches are of a part of the rotations.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._common import Row, main, row

NAME = "matching"
_VOXEL = 13.0
_SPECIES = ("ribosome", "fatty_acid_synthase")

_PYTME = """
import sys, time
import numpy as np
from tme.analyzer import MaxScoreOverRotations
from tme.backends import backend
from tme.matching_data import MatchingData
from tme.matching_exhaustive import MATCHING_EXHAUSTIVE_REGISTER, match_exhaustive

def once(folder):
    load = lambda stem: np.load(f"{folder}/{stem}.npy")
    data = MatchingData(
        target=load("volume"), template=load("template"), template_mask=load("mask"), rotations=load("rotations")
    )
    setup, scoring = MATCHING_EXHAUSTIVE_REGISTER["FLCSphericalMask"]
    start = time.perf_counter()
    match_exhaustive(
        matching_data=data, matching_setup=setup, matching_score=scoring, callback_class=MaxScoreOverRotations,
        interpolation_order=1,
    )
    return time.perf_counter() - start

if __name__ == "__main__":
    backend.change_backend(sys.argv[2])
    once(sys.argv[1])
    print(once(sys.argv[1]))
"""


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    shape, step, share = ((32, 64, 64), 20.0, 0.05) if quick else ((96, 192, 192), 10.0, 0.02)
    for species in _SPECIES[:1] if quick else _SPECIES:
        yield from one(species, shape, step, share, whole=quick)


def one(species: str, shape: tuple[int, int, int], step: float, share: float, *, whole: bool) -> Iterator[Row]:
    """One species: times, and with `whole` the agreement of the cascade's picks with those of the whole exact search."""
    from robpicker_jax.matching import (
        ExactSearch,
        Extraction,
        TemplateRecipe,
        Tiling,
        build_cascade,
        find_peaks,
        search_volume,
    )
    from robpicker_jax.rotations import binary_wedge, covering

    volume, truth = simulated(species, shape)
    from robpicker_jax.molecules import phantom_density

    template = TemplateRecipe().make(species, phantom_density(species, _VOXEL / 2), _VOXEL / 2, _VOXEL)
    rotations, wedge = covering(step), binary_wedge(template.edge, (-60, 60))
    case = f"{species}, {shape}, {len(rotations):,} angles at {step:g}°"
    work = float(np.prod(shape)) * len(rotations)
    tiling = Tiling.of(shape, 192)

    part = rotations[:: max(1, round(1 / share))]
    exact = ExactSearch(template, part, wedge)
    search_volume(volume, ExactSearch(template, part[:32], wedge), tiling)
    start = time.perf_counter()
    search_volume(volume, exact, tiling)
    exact_s = (time.perf_counter() - start) * len(rotations) / len(part)

    def turn_and_search() -> tuple[float, float, dict[str, np.ndarray], float, int]:
        start = time.perf_counter()
        cascade = build_cascade(template, rotations, wedge)
        built = time.perf_counter()
        maps = search_volume(volume, cascade, tiling)
        return built - start, time.perf_counter() - built, maps, cascade.energy, len(cascade.basis)

    turn_and_search()
    turning_s, cascade_s, maps, energy, rank = turn_and_search()
    yield row(NAME, case, "exact search, from a part of the angles", exact_s, "s")
    yield row(NAME, case, "exact search", work / exact_s, "voxel angles/s")
    yield row(NAME, case, "cascade, search", cascade_s, "s")
    yield row(NAME, case, "cascade, turning templates", turning_s, "s")
    yield row(NAME, case, "cascade, rank", rank, "")
    yield row(NAME, case, "cascade, energy of the basis", energy, "")
    yield row(NAME, case, "cascade against exact, search", exact_s / cascade_s, "x")
    yield row(NAME, case, "cascade against exact, with turning", exact_s / (cascade_s + turning_s), "x")
    settings = Extraction(template.diameter_vox / 2, cutoff="none", max_picks=len(truth), edge_vox=2)
    picks = find_peaks(maps["scores"], settings).voxels_zyx
    yield row(NAME, case, "cascade, F1 against the truth", agreement(picks, truth, template.diameter_vox / 2), "")
    why = "the whole exact search is run with --quick only"
    f1 = f1_exact = top = None
    if whole:
        everything = search_volume(volume, ExactSearch(template, rotations, wedge), tiling)
        reference = find_peaks(everything["scores"], settings).voxels_zyx
        f1, f1_exact = agreement(picks, reference, 1.8), agreement(reference, truth, template.diameter_vox / 2)
        best = np.argsort(-everything["scores"], axis=None)[: everything["scores"].size // 300]
        top = float((maps["angles"].reshape(-1)[best] >= 0).mean())
    yield row(NAME, case, "exact, F1 against the truth", f1_exact, "", why=why)
    yield row(NAME, case, "F1 between the lists of cascade and exact", f1, "", why=why)
    yield row(NAME, case, "best 300th of the voxels that the cascade settled", top, "", why=why)
    for backend in ("numpyfftw", "jax"):
        seconds, reason = pytme_seconds(volume, template.density, template.mask, part, backend)
        total = None if seconds is None else seconds * len(rotations) / len(part)
        yield row(NAME, case, f"pytme, {backend}, from a part of the angles", total, "s", why=reason)
        ratio = None if total is None else total / exact_s
        yield row(NAME, case, f"exact against pytme, {backend}", ratio, "x", why=reason)
        ratio = None if total is None else total / (cascade_s + turning_s)
        yield row(NAME, case, f"cascade with turning against pytme, {backend}", ratio, "x", why=reason)


def simulated(species: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A tomogram with mean 0 and deviation 1, and the true positions (n, 3), z y x."""
    from robpicker_jax.config import SimulationConfig
    from robpicker_jax.molecules import get_phantom, phantom_density
    from robpicker_jax.simulation import simulate_tomogram

    config = SimulationConfig(shape_zyx=shape, voxel_size_angstrom=_VOXEL, defocus_um=0.0, snr=0.1)
    density = phantom_density(species, _VOXEL)
    copies = max(4, round(0.1 * np.prod(shape) / (2 * get_phantom(species).bounding_radius_angstrom / _VOXEL) ** 3))
    tomogram = simulate_tomogram([density], [copies], config)
    volume = tomogram.density
    return ((volume - volume.mean()) / volume.std()).astype(np.float32), tomogram.particles.positions_vox[:, ::-1]


def agreement(picks: np.ndarray, truth: np.ndarray, limit: float) -> float:
    """F1 of one-to-one pairs no further apart than a limit."""
    from scipy.optimize import linear_sum_assignment

    away = np.linalg.norm(picks[:, None] - truth[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(away <= limit, away, 1e6))
    return float(2 * (away[rows, columns] <= limit).sum() / max(1, len(picks) + len(truth)))


def pytme_seconds(
    volume: np.ndarray, template: np.ndarray, mask: np.ndarray, rotations: np.ndarray, backend: str
) -> tuple[float | None, str]:
    """Time of pytme's exhaustive search, or why there is none."""
    python = os.environ.get("PYTME_PYTHON")
    if python is None:
        return None, "PYTME_PYTHON does not name an interpreter with pytme"
    with tempfile.TemporaryDirectory() as folder:
        arrays = {"volume": volume, "template": template, "mask": mask, "rotations": rotations.astype(np.float32)}
        for stem, array in arrays.items():
            np.save(Path(folder) / f"{stem}.npy", array)
        script = Path(folder) / "run_pytme.py"  # a file, since pytme's worker processes import it
        script.write_text(_PYTME, encoding="utf-8")
        done = subprocess.run([python, str(script), folder, backend], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None, f"pytme failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}"
    return float(done.stdout.split()[-1]), ""


if __name__ == "__main__":
    main(NAME, run)
