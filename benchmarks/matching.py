"""Template matching: exact search, the cascade, and pytme's exhaustive search on one simulated tomogram.

All run on one volume with one template, mask and list of rotations, in this process or, for pytme, in the
interpreter that the environment variable PYTME_PYTHON names; a virtual environment of its own, in which
`pip install pytme` was run. pytme gets no wedge, which saves it a product for each rotation. Neither pads the volume: pytme's
correlation is circular, and ours leaves out the rim in which nothing is picked. Times of the exact searches are of a
part of the rotations. CPU seconds are those of all threads of a process: on a machine that does other work too, they
say more than the time that passed. How lists agree is measured on a smaller tomogram, at every rotation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._common import Row, main, peak_memory_mib, row
from robpicker_jax.system.cores import usable_cores

if TYPE_CHECKING:
    from robpicker_jax.matching import Extraction, Template

NAME = "matching"
_VOXEL = 13.0
_SPECIES = ("ribosome", "hsp90")
_STEP = 10.0

_PYTME = """
import sys, time
import numpy as np
from tme.analyzer import MaxScoreOverRotations
from tme.backends import backend
from tme.matching_data import MatchingData
from tme.matching_exhaustive import MATCHING_EXHAUSTIVE_REGISTER, match_exhaustive

def once(folder, jobs):
    load = lambda stem: np.load(f"{folder}/{stem}.npy")
    data = MatchingData(
        target=load("volume"), template=load("template"), template_mask=load("mask"), rotations=load("rotations")
    )
    setup, scoring = MATCHING_EXHAUSTIVE_REGISTER["FLCSphericalMask"]
    start, busy = time.perf_counter(), time.process_time()
    match_exhaustive(
        matching_data=data, matching_setup=setup, matching_score=scoring, callback_class=MaxScoreOverRotations,
        interpolation_order=1, job_schedule=(1, jobs),
    )
    return time.perf_counter() - start, time.process_time() - busy

if __name__ == "__main__":
    backend.change_backend(sys.argv[2])
    jobs = int(sys.argv[3])
    once(sys.argv[1], jobs)
    print(*once(sys.argv[1], jobs))
"""


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    large, small, step = ((32, 64, 64), (32, 64, 64), 20.0) if quick else ((96, 192, 192), (48, 112, 112), _STEP)
    for species in _SPECIES[:1] if quick else _SPECIES:
        yield from times(species, large, step, 0.05 if quick else 0.01)
        yield from lists(species, small, step)
    yield from memory(_SPECIES[0], large, step)


def made(species: str) -> Template:
    """The template of a species of the simulator."""
    from robpicker_jax.matching import TemplateRecipe
    from robpicker_jax.molecules import phantom_density

    return TemplateRecipe().make(species, phantom_density(species, _VOXEL / 2), _VOXEL / 2, _VOXEL)


def picked(template: Template, cutoff: str = "none", most: int | None = None) -> Extraction:
    """The customary extraction of a template's picks."""
    from robpicker_jax.matching import Extraction
    from robpicker_jax.matching.extraction import rim

    diameter = template.diameter_vox
    return Extraction(diameter / 2, cutoff=cutoff, max_picks=most, edge_vox=rim(diameter))


def timed(function: Callable[[], object]) -> np.ndarray:
    """Seconds that passed and CPU seconds of this process."""
    start, busy = time.perf_counter(), time.process_time()
    function()
    return np.array([time.perf_counter() - start, time.process_time() - busy])


def times(species: str, shape: tuple[int, int, int], step: float, share: float) -> Iterator[Row]:
    """Times of one species: exact search, cascade, pytme."""
    from robpicker_jax.matching import ExactSearch, MatchPlan, MatchSettings, build_cascade, search_volume
    from robpicker_jax.rotations import binary_wedge, covering

    template, (volume, _) = made(species), simulated(species, shape)
    rotations, wedge = covering(step), binary_wedge(template.edge, (-60, 60))
    case = f"{species}, {shape}, {len(rotations):,} angles at {step:g}°"
    tiling = MatchPlan([template], MatchSettings(step), [picked(template)]).tiling(shape)
    part = rotations[:: max(1, round(1 / share))]
    whole = len(rotations) / len(part)

    def search(workers: int | None, given: np.ndarray) -> Callable[[], object]:
        return lambda: search_volume(volume, ExactSearch(template, given, wedge, workers=workers), tiling)

    def cascade() -> tuple[np.ndarray, np.ndarray]:
        found = []
        turning = timed(lambda: found.append(build_cascade(template, rotations, wedge)))
        return turning, timed(lambda: search_volume(volume, found[0], tiling))

    exact = {}
    for workers in dict.fromkeys((1, usable_cores())):
        search(workers, part[:64])()
        exact[workers] = timed(search(workers, part)) * whole
        name = f"exact search, {workers} thread{'s' * (workers > 1)}, from a part of the angles"
        yield row(NAME, case, name, exact[workers][0], "s")
        yield row(NAME, case, f"{name}, CPU", exact[workers][1], "s")
    cascade()
    turning, searching = cascade()
    threads = usable_cores()
    for name, spent in (("turning templates", turning), ("search", searching)):
        yield row(NAME, case, f"cascade, {threads} threads, {name}", spent[0], "s")
        yield row(NAME, case, f"cascade, {threads} threads, {name}, CPU", spent[1], "s")
    for name, spent in (("search alone", searching), ("with turning", turning + searching)):
        for kind, times_faster in zip(("", ", CPU"), exact[threads] / spent, strict=True):
            yield row(NAME, case, f"exact search over cascade, {name}{kind}", float(times_faster), "x", better="higher")
    for backend, jobs in (("numpyfftw", 1), ("numpyfftw", threads), ("jax", 1)):
        taken, why = pytme_seconds(volume, template.density, template.mask, part, backend, jobs)
        name = f"pytme, {backend}, {jobs} job{'s' * (jobs > 1)}"
        # jax takes all cores whatever the jobs. CPU seconds of jobs in other processes are not known.
        ours = exact[threads if backend == "jax" else jobs]
        total, ratio = (None, (None, None)) if taken is None else (float(taken[0] * whole), tuple(taken * whole / ours))
        yield row(NAME, case, f"{name}, from a part of the angles", total, "s", why=why)
        yield row(NAME, case, f"{name}, over exact search", ratio[0], "x", why=why, better="higher")
        if jobs == 1:
            yield row(NAME, case, f"{name}, over exact search, CPU", ratio[1], "x", why=why, better="higher")


def lists(species: str, shape: tuple[int, int, int], step: float) -> Iterator[Row]:
    """How the picks of the cascade agree with those of the whole exact search, and both with the truth."""
    from robpicker_jax.matching import Matcher, MatchSettings, find_peaks

    template, (volume, truth) = made(species), simulated(species, shape)
    rim = picked(template).edge_vox
    truth = truth[((truth >= rim) & (truth < np.array(shape) - rim)).all(axis=1)]
    counted, significant = picked(template, most=len(truth)), picked(template, "extreme")
    found, angles = {}, 0
    for search in ("exact", "cascade"):
        matcher = Matcher([template], MatchSettings(step, search, refine=False), [picked(template)])
        angles = len(matcher.rotations(template))
        found[search] = matcher.match(volume).templates[0]
    case = f"{species}, {shape}, {angles:,} angles at {step:g}°, {len(truth)} particles"
    chosen = {
        (search, kind): find_peaks(match.scores, settings)
        for search, match in found.items()
        for kind, settings in (("counted", counted), ("significant", significant))
    }
    radius = template.diameter_vox / 2
    for search in found:
        picks = chosen[search, "counted"].voxels_zyx
        yield row(NAME, case, f"{search}, F1 of as many picks as particles", agreement(picks, truth, radius), "")
        yield row(NAME, case, f"{search}, picks above the cut-off extreme", len(chosen[search, "significant"]), "")
    for kind, name in (("counted", "as many picks as particles"), ("significant", "picks above the cut-off extreme")):
        ours, oracle = (chosen[search, kind].voxels_zyx for search in ("cascade", "exact"))
        f1 = agreement(ours, oracle, 1.8)
        yield row(NAME, case, f"F1 between the lists of cascade and exact search, {name}", f1, "", better="higher")
    exact = found["exact"].scores
    best = np.argsort(-exact, axis=None)[: exact.size // 300]
    settled = float((found["cascade"].angles.reshape(-1)[best] >= 0).mean())
    yield row(NAME, case, "best 300th of the voxels that the cascade scored exactly", settled, "")


def memory(species: str, shape: tuple[int, int, int], step: float) -> Iterator[Row]:
    """What matching by the cascade takes of memory, beside the bound that `match` prints."""
    from robpicker_jax.matching import Matcher, MatchSettings

    template, (volume, _) = made(species), simulated(species, shape)
    case = f"{species}, {shape} at {step:g}°, cascade"

    def matched() -> None:
        matcher = Matcher([template], MatchSettings(step, refine=False), [picked(template)])
        with tempfile.TemporaryDirectory() as folder:
            matcher.match(volume, folder=Path(folder))

    bound = Matcher([template], MatchSettings(step), [picked(template)]).bytes(shape) / 2**20
    matched()  # compiled programs are no part of the bound
    _, peak = peak_memory_mib(matched)
    yield row(NAME, case, "memory, bound", bound, "MiB")
    yield row(NAME, case, "memory, peak", peak, "MiB", why="peak memory is read from /proc")


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
    volume: np.ndarray, template: np.ndarray, mask: np.ndarray, rotations: np.ndarray, backend: str, jobs: int
) -> tuple[np.ndarray | None, str]:
    """Seconds that passed and CPU seconds of pytme's exhaustive search, or why there are none."""
    python = os.environ.get("PYTME_PYTHON")
    if python is None:
        return None, "PYTME_PYTHON does not name an interpreter with pytme"
    with tempfile.TemporaryDirectory() as folder:
        arrays = {"volume": volume, "template": template, "mask": mask, "rotations": rotations.astype(np.float32)}
        for stem, array in arrays.items():
            np.save(Path(folder) / f"{stem}.npy", array)
        script = Path(folder) / "run_pytme.py"  # a file, since pytme's worker processes import it
        script.write_text(_PYTME, encoding="utf-8")
        done = subprocess.run([python, str(script), folder, backend, str(jobs)], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None, f"pytme failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}"
    return np.array(done.stdout.split()[-2:], float), ""


if __name__ == "__main__":
    main(NAME, run)
