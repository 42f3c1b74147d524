"""Simulated tomograms of many kinds for the model `general`: what is drawn anew for each, and the data set of them.

Each tomogram has its own voxel size, signal-to-noise ratio, defocus, tilts, CTF correction, numbers of particles and of gold
beads. Three sizes of ribosome count as one species. Thyroglobulin, p97 and gold beads are there and are not annotated, so
that the network learns to leave them. All files state the middle voxel size: the network is to know its particles at
any size between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.config import SimulationConfig, Species
from robpicker_jax.labels import ShapeLabels
from robpicker_jax.molecules import PHANTOMS, phantom_density, species_density, species_mask
from robpicker_jax.simulation import simulate_tomogram
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text
from robpicker_jax.volumes import write_mrc

VOXEL_SIZES = (10.0, 13.0)
"""Smallest and largest voxel size, Å."""
MIDDLE = 11.4
"""The voxel size that files and model state, Å: as far from the smallest as from the largest, in proportion."""
TOLERANCE = 0.145
"""Relative difference from it up to which the model takes tomograms as they are: from 9.75 to 13.05 Å."""
SNR = (0.03, 0.6)
"""Smallest and largest signal-to-noise ratio of a projection; drawn evenly in its logarithm."""
DEFOCI = (1.5, 5.0)
"""Smallest and largest underfocus, µm."""
SHAPE = (64, 128, 128)

SPECIES: dict[str, tuple[str, float]] = {
    "ribosome": ("ribosome", 3300.0),
    "small_ribosome": ("ribosome", 2500.0),
    "large_ribosome": ("ribosome", 4300.0),
    "fatty_acid_synthase": ("fatty_acid_synthase", 2600.0),
    "proteasome": ("proteasome", 1600.0),
    "chaperonin": ("chaperonin", 870.0),
    "apoferritin": ("apoferritin", 480.0),
    "thyroglobulin": ("thyroglobulin", 660.0),
    "p97": ("p97", 540.0),
}
"""What is simulated: phantom and molecular weight in kDa, to which the phantom is scaled."""
CLASSES = ("ribosome", "fatty_acid_synthase", "proteasome", "chaperonin", "apoferritin")
"""What is annotated, in the order of the class labels."""
_CLASS_OF = {"small_ribosome": "ribosome", "large_ribosome": "ribosome"}
_MOST = (4, 3, 3, 4, 8, 10, 14, 5, 6)
"""Most copies of each of `SPECIES` in a tomogram."""
_FINE = 4.0  # Å, sampling of a scaled phantom
_TRIES = 12  # times that fewer particles are tried where they do not fit


@dataclass(frozen=True)
class Conditions:
    """What differs between the tomograms.

    Attributes:
        simulation: voxel size, tilts, optics, noise, beads and seed.
        copies: particles of each of `SPECIES`.
    """

    simulation: SimulationConfig
    copies: tuple[int, ...]


def conditions(seed: int, split: str, index: int, shape_zyx: tuple[int, int, int] = SHAPE) -> Conditions:
    """What a tomogram of a split is like; it depends on these numbers alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, *split.encode(), index]))
    low, high = np.log(SNR)
    simulation = SimulationConfig(
        shape_zyx=shape_zyx,
        voxel_size_angstrom=round(float(rng.uniform(*VOXEL_SIZES)), 2),
        snr=round(float(np.exp(rng.uniform(low, high))), 3),
        defocus_um=round(float(rng.uniform(*DEFOCI)), 2),
        tilt_max_deg=float(rng.choice([48.0, 54.0, 60.0, 66.0])),
        tilt_step_deg=float(rng.choice([2.0, 3.0, 4.0])),
        ctf_correction="phase_flip" if rng.random() < 0.7 else "none",
        beads=int(rng.integers(0, 4)),
        bead_diameter_angstrom=100.0,
        seed=int(rng.integers(2**31)),
    )
    return Conditions(simulation, tuple(int(rng.integers(0, most + 1)) for most in _MOST))


def species(folder: Path) -> list[Species]:
    """The simulated species; those that are a phantom at another size as density maps, written into a folder."""
    found = []
    for name, (phantom, weight) in SPECIES.items():
        radius = PHANTOMS[phantom].radius_angstrom * (weight / PHANTOMS[phantom].molecular_weight_kda) ** (1 / 3)
        if weight == PHANTOMS[phantom].molecular_weight_kda:
            found.append(Species(name, radius / MIDDLE, phantom=phantom, molecular_weight_kda=weight))
            continue
        path = folder / f"{name}.mrc"
        if not path.exists():
            scale = (weight / PHANTOMS[phantom].molecular_weight_kda) ** (1 / 3)
            write_mrc(path, phantom_density(phantom, _FINE), _FINE * scale)
        found.append(Species(name, radius / MIDDLE, density=str(path), molecular_weight_kda=weight))
    return found


def make(folder: Path, counts: Mapping[str, int], seed: int, shape_zyx: tuple[int, int, int] = SHAPE) -> Iterator[str]:
    """Make what is missing of a data set; the name of each tomogram, when it is there.

    Args:
        folder: of the data set, in which conditions.json then tells what each tomogram is like.
        counts: number of tomograms by split.
        seed: of everything.
        shape_zyx: size of the tomograms, voxels.
    """
    known = species(folder)
    told = {}
    for split, count in counts.items():
        for index in range(count):
            name = f"{split}_{index:03d}"
            drawn = conditions(seed, split, index, shape_zyx)
            told[name] = asdict(drawn.simulation) | {"copies": dict(zip(SPECIES, drawn.copies, strict=True))}
            if not (folder / split / f"{name}.mrc").exists():
                _write(folder / split, name, drawn, tuple(known))
            yield name
    write_text(folder / "conditions.json", json.dumps(told, indent=1) + "\n")


def _write(folder: Path, name: str, drawn: Conditions, known: tuple[Species, ...]) -> None:
    """Simulate one tomogram and write its files, the volume last."""
    size = drawn.simulation.voxel_size_angstrom
    densities, masks = _shapes(known, size)
    copies = np.array(drawn.copies)
    for attempt in range(_TRIES):
        try:
            made = simulate_tomogram(densities, copies.tolist(), drawn.simulation)
            break
        except InputError:  # they do not fit
            if attempt + 1 == _TRIES:
                raise
            copies = copies * 3 // 4
    names = [_CLASS_OF.get(entry.name, entry.name) for entry in known]
    label_of = np.array([CLASSES.index(entry) + 1 if entry in CLASSES else 0 for entry in names])
    target = ShapeLabels(list(masks)).labels(drawn.simulation.shape_zyx, made.particles)
    labels = label_of[made.particles.labels - 1]
    kept = labels > 0
    listed = Particles(
        made.particles.positions_vox[kept], labels[kept], class_names=np.array(CLASSES)[labels[kept] - 1]
    )
    write_annotations(folder / f"{name}_objl.xml", listed)
    write_mrc(folder / f"{name}_target.mrc", np.append(0, label_of).astype(np.uint8)[target], MIDDLE)
    write_mrc(folder / f"{name}.mrc", made.density, MIDDLE)


@cache
def _shapes(known: tuple[Species, ...], size: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Densities and masks of the species at a voxel size."""
    return [species_density(entry, size) for entry in known], [species_mask(entry, size) for entry in known]


def annotated_species() -> list[dict[str, object]]:
    """The annotated species as a configuration has them, at the middle voxel size."""
    return [
        {
            "name": name,
            "radius_vox": round(PHANTOMS[name].radius_angstrom / MIDDLE, 2),
            "molecular_weight_kda": PHANTOMS[name].molecular_weight_kda,
        }
        for name in CLASSES
    ]
