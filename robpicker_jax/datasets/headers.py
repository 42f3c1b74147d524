"""What the headers of volumes must agree on: the voxel size, and room for a patch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import VolumeReader, open_volume

_VOXEL_SIZE_TOLERANCE = 0.01


def agreed_voxel_size(
    volumes: Iterable[VolumeReader | TomogramFiles],
    configured: float | None = None,
    *,
    source: str = "data.voxel_size_angstrom",
) -> float | None:
    """The voxel size in Å that all headers and the configuration agree on; None where it is not known.

    Args:
        volumes: opened volumes, or tomograms whose volumes are opened here for their headers.
        configured: voxel size in Å that the configuration gives.
        source: key or flag that gives it.

    Raises:
        InputError: two of them differ by more than 1 %; the message names file and values.
    """
    size = configured
    for volume in volumes:
        if isinstance(volume, TomogramFiles):
            with open_volume(volume.volume_path) as reader:
                path, header = reader.path, reader.voxel_size_angstrom
        else:
            path, header = volume.path, volume.voxel_size_angstrom
        if header is None:
            continue
        if size is None:
            size, source = header, str(path)
        elif abs(header - size) > _VOXEL_SIZE_TOLERANCE * size:
            raise InputError(
                f"voxel size {header:.4g} Å, but {source} says {size:.4g} Å",
                where=path,
                fix="correct the header or the configuration, or resample the tomogram",
            )
    return size


def check_patch_fits(shape_zyx: Sequence[int], patch_size: int, where: Path | str) -> None:
    """Refuse a volume that is smaller than a patch along any axis.

    Raises:
        InputError: naming the volume's size and the configuration's key.
    """
    if min(shape_zyx) < patch_size:
        depth, height, width = shape_zyx
        raise InputError(
            f"volume of {width} x {height} x {depth} voxels (x y z) is smaller than a patch of {patch_size}",
            where=where,
            fix="lower patches.size or use a larger volume",
        )
