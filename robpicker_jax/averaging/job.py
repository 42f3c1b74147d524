"""The averaging of one class from the first to the last iteration, resumed where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.averaging.extraction import box_centres, cut, normalised, soft_ball, surroundings
from robpicker_jax.averaging.particle_set import ParticleSet, Source
from robpicker_jax.averaging.refinement import iterate, start
from robpicker_jax.averaging.results import AverageResult, finish, iteration_file, last_iteration, save
from robpicker_jax.averaging.settings import AveragingSettings
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

ITERATIONS = "iterations"
_INPUTS = "inputs.json"
# What only the end of an averaging depends on, or how many iterations there are: the earlier iterations stay good.
_FREE = (
    "iterations",
    "mask_threshold",
    "dilation_vox",
    "soft_edge_vox",
    "molecular_weight_kda",
    "batch",
)
_PEEKED = 64


@dataclass(frozen=True, eq=False)
class ClassJob:
    """One class to be averaged.

    Attributes:
        name: of the class.
        folder: where its files go.
        sources: the tomograms.
        particles: its particles, as listed.
        settings: how.
        voxel_size_angstrom: of the tomograms.
        reference: (edge, edge, edge), a map that both halves start from; None: each from its own particles.
    """

    name: str
    folder: Path
    sources: Sequence[Source]
    particles: ParticleSet
    settings: AveragingSettings
    voxel_size_angstrom: float
    reference: np.ndarray | None = None

    def identity(self) -> dict[str, Any]:
        """What the iterations in the folder must have been made from."""
        settings = {name: value for name, value in self.settings.as_dict().items() if name not in _FREE}
        reference = None if self.reference is None else hashlib.sha256(self.reference.tobytes()).hexdigest()
        tomograms = [
            {
                "name": source.name,
                "volume": source.stamp,
                "tilts_deg": [source.transfer.tilt_min_deg, source.transfer.tilt_max_deg],
                "tilts": None if source.transfer.tilts is None else repr(source.transfer.tilts),
                "ctf": ctf_digest(source, self.voxel_size_angstrom),
            }
            for source in self.sources
        ]
        return {
            "settings": settings,
            "particles": self.particles.digest(),
            "reference": reference,
            "tomograms": tomograms,
            "voxel_size_angstrom": self.voxel_size_angstrom,
        }

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder with iterations of something else.

        Raises:
            InputError: such a folder, without `overwrite`.
        """
        path = self.folder / ITERATIONS / _INPUTS
        if not path.is_file() or overwrite:
            return
        before, now = read_json_object(path), json.loads(json.dumps(self.identity()))
        if before != now:
            changed = ", ".join(sorted(key for key in now if before.get(key) != now[key]))
            raise InputError(
                f"holds an averaging of other inputs (they differ in: {changed})",
                where=self.folder,
                fix="--overwrite replaces it, or give another --out",
            )

    def begun(self) -> bool:
        """Whether the folder holds an averaging that was begun, of the same inputs where `check` lets it pass."""
        return (self.folder / ITERATIONS / _INPUTS).is_file()

    def steps(self) -> int:
        """Particles to go through in all iterations, aligning and averaging."""
        n, keep = len(self.particles), self.settings.keep
        return n + self.settings.iterations * (n + round(keep * n))

    def run(self, advance: Callable[[int], None], *, overwrite: bool = False) -> AverageResult:
        """All iterations that are not on disk yet, and the final maps.

        Args:
            advance: told how many particles were done, those of iterations on disk at once.
            overwrite: begin anew.

        Raises:
            InputError: as `check` and `results.finish`, or a damaged iteration.
        """
        folder = self.folder / ITERATIONS
        self.check(overwrite=overwrite)
        if overwrite:
            for old in folder.glob("iteration_*.npz"):
                old.unlink()
        write_text(folder / _INPUTS, json.dumps(self.identity(), indent=1) + "\n")
        last = last_iteration(folder, self.settings.iterations)
        if last is None:
            last = start(self.sources, self.particles, self.settings, self.voxel_size_angstrom, advance)
            save(last, folder)
        else:
            n = len(self.particles)
            advance(n + last.number * (n + round(self.settings.keep * n)))
        while last.number < self.settings.iterations:
            last = iterate(
                last, self.sources, self.settings, self.voxel_size_angstrom, advance, reference=self.reference
            )
            save(last, folder)
        return finish(last, self.settings, self.voxel_size_angstrom)

    def finished_iterations(self) -> int:
        """Iterations on disk, 0 to `settings.iterations` + 1."""
        folder = self.folder / ITERATIONS
        return sum(iteration_file(folder, number).is_file() for number in range(self.settings.iterations + 1))


def ctf_digest(source: Source, voxel_size_angstrom: float) -> str | None:
    """Hash of a tomogram's CTF; None without one."""
    if source.transfer.ctf is None:
        return None
    values = source.transfer.ctf(np.linspace(0, 0.5 / voxel_size_angstrom, 64))
    return hashlib.sha256(np.round(values, 6).tobytes()).hexdigest()


def contrast_sign(sources: Sequence[Source], particles: ParticleSet, edge: int, radius_vox: float) -> float:
    """1 where particles are brighter than their surroundings, −1 where darker, from the mean of some boxes as they are.

    Rotations do not matter for the mean density within half the radius against that beyond it.
    """
    ball, around = soft_ball(edge, 0.6 * radius_vox, 0.0) > 0.5, surroundings(edge, radius_vox)
    centres, _ = box_centres(particles.listed_vox)
    chosen = np.unique(np.linspace(0, len(particles) - 1, min(_PEEKED, len(particles))).round().astype(int))
    total = 0.0
    for index in chosen.tolist():
        box = normalised(cut(sources[int(particles.source[index])].reader, centres[index], edge), around)
        total += float(box[ball].mean())
    return 1.0 if total >= 0 else -1.0


def peak_bytes(settings: AveragingSettings, rotations: int = 0) -> int:
    """Memory that averaging takes at most beside the tomograms' readers, bytes.

    Args:
        settings: boxes, batch and shifts.
        rotations: of the global search; 0 without one.
    """
    edge, batch = settings.edge, settings.batch
    padded = 8 * (2 * edge) ** 3
    frequencies = np.pi * edge**3 / 12  # half of the ball of half the edge
    averaging = 4 * batch * edge**3 * 3 + 4 * padded + 160 * frequencies
    local = 2 * padded + frequencies * (7 * 12 * 8 + 27 * 24)
    shifts = 4.2 * settings.shift_limit_vox**3 + 1
    searching = frequencies * (512 * 60 + batch * shifts * 24) + 512 * batch * shifts * 12 if rotations else 0
    maps = 20 * 8 * edge**3
    return int(maps + max(averaging, local + 2 * padded, searching + 2 * padded) + 4 * batch * edge**3)
