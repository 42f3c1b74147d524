"""The clean label map of a simulated training tomogram, against which corrected labels are judged."""

from __future__ import annotations

import numpy as np

from robpicker_jax.annotations import read_annotations
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import OpenedTomogram, load_target
from robpicker_jax.labels.maker import label_maker


def clean_labels(tomogram: OpenedTomogram, data: DataConfig) -> np.ndarray | None:
    """The label map (z, y, x) that the correction should give for a tomogram of a simulated data set.

    It has the form of the meta tomograms' labels, from which the correction learns: balls about the clean positions where
    those are balls, else the particles' shapes. A perfect ball differs from the particle's shape in many voxels, so that
    judged by the wrong form no correction could look good.

    Returns:
        None where no clean annotations are stored beside the noisy ones.
    """
    files = tomogram.files
    listed = files.volume_path.with_name(f"{files.name}_truth_objl.xml")
    if data.train_labels == "map" or not listed.is_file():
        return None
    if data.meta_labels in ("sphere", "point"):
        maker = label_maker(data.species, data.meta_labels, voxel_size_angstrom=tomogram.voxel_size_angstrom)
        return maker.labels(tomogram.shape_zyx, read_annotations(listed))
    return None if files.target_path is None else load_target(files, len(data.species), tomogram.shape_zyx)
