"""What template matching and averaging share: rotated volumes, point groups, coverings of SO(3), the missing wedge.

A rotation R acts on column vectors (x, y, z) and takes a particle's reference frame to the tomogram's, as in
`annotations.geometry`. Volumes are cubes that turn about the voxel `size // 2` of each axis. Weights in Fourier space
are centred: the zero frequency is the voxel `size // 2`, so that they turn as volumes do; `half_layout` brings them into
the order of `rfftn`.
"""

from robpicker_jax.rotations.coverings import covering, local_covering, rotation_count
from robpicker_jax.rotations.quaternions import matrices_from_quaternions, quaternions_from_matrices
from robpicker_jax.rotations.symmetry import asymmetric_unit, point_group, symmetrise
from robpicker_jax.rotations.volumes import oversample, rotate_volume, sample_trilinear
from robpicker_jax.rotations.wedge import TiltScheme, binary_wedge, half_layout, scheme_of, tilt_weights

__all__ = [
    "TiltScheme",
    "asymmetric_unit",
    "binary_wedge",
    "covering",
    "half_layout",
    "local_covering",
    "matrices_from_quaternions",
    "oversample",
    "point_group",
    "quaternions_from_matrices",
    "rotate_volume",
    "rotation_count",
    "sample_trilinear",
    "scheme_of",
    "symmetrise",
    "tilt_weights",
]
