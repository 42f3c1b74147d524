"""What labels and simulation are made from: phantoms, density maps, masks.

`PHANTOMS` are analytic stand-ins for well-known complexes; `species_density` and `species_mask` give the density and
the shape of a configuration's species on the grid of its tomograms.
"""

from robpicker_jax.molecules.beads import bead_density
from robpicker_jax.molecules.densities import (
    density_from_map,
    estimate_weight_kda,
    species_density,
    species_mask,
)
from robpicker_jax.molecules.phantoms import PHANTOMS, PROTEIN_DENSITY, Phantom, get_phantom, phantom_density

__all__ = [
    "PHANTOMS",
    "PROTEIN_DENSITY",
    "Phantom",
    "bead_density",
    "density_from_map",
    "estimate_weight_kda",
    "get_phantom",
    "phantom_density",
    "species_density",
    "species_mask",
]
