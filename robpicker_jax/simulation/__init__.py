"""Simulated tomograms: phantoms or density maps, tilt series with CTF and noise, weighted back-projection.

One tomogram: `simulate_tomogram` (particles placed at random) or `simulate_at` (given places). A data set on disk:
`simulate_dataset`. The parts stand alone: `phantom_density`, `species_density`, `species_mask`, `place_particles`,
`draw_sample`, `take_tilt_series`, `reconstruct`.

Modules here `import scipy` and name its parts in full: SciPy imports a part when it is first used, so that a training
that resumes, which asks this package for no more than whether its data are there, does not wait for them.
"""

from robpicker_jax.molecules.densities import density_from_map, species_density, species_mask
from robpicker_jax.molecules.phantoms import PHANTOMS, Phantom, get_phantom, phantom_density
from robpicker_jax.simulation.dataset import Placement, count_tomograms, is_finished, simulate_dataset
from robpicker_jax.simulation.drawing import draw_sample
from robpicker_jax.simulation.optics import Optics
from robpicker_jax.simulation.placement import Outline, outline, place_particles
from robpicker_jax.simulation.reconstruction import reconstruct
from robpicker_jax.simulation.tilt_series import TiltSeries, project, take_tilt_series, tilt_angles
from robpicker_jax.simulation.tomogram import SimulatedTomogram, simulate_at, simulate_tomogram

__all__ = [
    "PHANTOMS",
    "Optics",
    "Outline",
    "Phantom",
    "Placement",
    "SimulatedTomogram",
    "TiltSeries",
    "count_tomograms",
    "density_from_map",
    "draw_sample",
    "get_phantom",
    "is_finished",
    "outline",
    "phantom_density",
    "place_particles",
    "project",
    "reconstruct",
    "simulate_at",
    "simulate_dataset",
    "simulate_tomogram",
    "species_density",
    "species_mask",
    "take_tilt_series",
    "tilt_angles",
]
