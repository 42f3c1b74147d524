"""What is on disk: finding a data set's tomograms, lists and masks, and the one way to open them."""

from robpicker_jax.datasets.configured import dataset
from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles, discover, tomograms_from
from robpicker_jax.datasets.headers import agreed_voxel_size
from robpicker_jax.datasets.particle_lists import load_particles
from robpicker_jax.datasets.scalings import Scalings
from robpicker_jax.datasets.stored_maps import load_mask, load_target
from robpicker_jax.datasets.surveying import Survey, survey
from robpicker_jax.datasets.tomogram import OpenedTomogram, open_tomogram, stream_tomograms

__all__ = [
    "SPLITS",
    "OpenedTomogram",
    "Scalings",
    "Survey",
    "TomogramFiles",
    "agreed_voxel_size",
    "dataset",
    "discover",
    "load_mask",
    "load_particles",
    "load_target",
    "open_tomogram",
    "stream_tomograms",
    "survey",
    "tomograms_from",
]
