"""Simulated tomograms: phantoms or density maps, tilt series with CTF and noise, weighted back-projection.

One tomogram: `simulate_tomogram` (particles at random positions) or `simulate_at` (given positions). A data set on
disk: `simulate_dataset`. The parts stand alone: `place_particles`, `draw_sample`, `take_tilt_series`, `reconstruct`,
`add_label_noise`. Densities and masks of the particles come from `robpicker_jax.molecules`.

Modules here `import scipy` and name its parts in full: SciPy imports a part when it is first used, so that a training
that resumes, which asks this package for no more than whether its data are there, does not wait for them.
"""

from robpicker_jax.simulation.dataset import is_finished, simulate_dataset
from robpicker_jax.simulation.drawing import draw_sample
from robpicker_jax.simulation.jobs import DatasetRecipe, Placement
from robpicker_jax.simulation.label_noise import add_label_noise
from robpicker_jax.simulation.optics import Optics
from robpicker_jax.simulation.placement import Outline, outline, place_particles
from robpicker_jax.simulation.reconstruction import reconstruct
from robpicker_jax.simulation.tilt_series import TiltSeries, project, take_tilt_series, tilt_angles
from robpicker_jax.simulation.tomogram import SimulatedTomogram, simulate_at, simulate_tomogram

__all__ = [
    "DatasetRecipe",
    "Optics",
    "Outline",
    "Placement",
    "SimulatedTomogram",
    "TiltSeries",
    "add_label_noise",
    "draw_sample",
    "is_finished",
    "outline",
    "place_particles",
    "project",
    "reconstruct",
    "simulate_at",
    "simulate_dataset",
    "simulate_tomogram",
    "take_tilt_series",
    "tilt_angles",
]
