"""Tomograms, density maps and masks as files: reading, writing and normalising arrays (z, y, x), voxel sizes in Å."""

from robpicker_jax.volumes.formats import VOLUME_SUFFIXES, is_volume, open_volume, read_volume, volume_stem
from robpicker_jax.volumes.maps import read_map, read_mask
from robpicker_jax.volumes.mrc import write_mrc
from robpicker_jax.volumes.normalisation import Scaling, normalise
from robpicker_jax.volumes.volume import NO_ORIGIN, Origin, Volume, VolumeReader, check_finite

__all__ = [
    "NO_ORIGIN",
    "VOLUME_SUFFIXES",
    "Origin",
    "Scaling",
    "Volume",
    "VolumeReader",
    "check_finite",
    "is_volume",
    "normalise",
    "open_volume",
    "read_map",
    "read_mask",
    "read_volume",
    "volume_stem",
    "write_mrc",
]
