"""TIFF stacks as volumes: plain, ImageJ and OME-TIFF, through the tifffile package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.units import angstroms_per
from robpicker_jax.volumes.volume import ArrayReader, LazyReader, VolumeReader

_MOST_PLANES = 1 << 16


def open_tiff(path: Path) -> VolumeReader:
    """Open a TIFF stack, memory-mapped where its voxels lie uncompressed in one piece.

    The voxel size comes from ImageJ's spacing and resolution or from OME's PhysicalSize; without a unit it is unknown.

    Raises:
        InputError: not a TIFF, truncated, not one 3D stack of grey values, or a compression that needs the imagecodecs
            package.
    """
    try:
        import tifffile
    except ImportError:
        raise InputError("reading TIFF needs the tifffile package", where=path, fix="pip install tifffile") from None
    try:
        with tifffile.TiffFile(path) as tiff:
            len(tiff.pages)  # walks the chain of pages and ends where it runs in a circle; `series` alone would not end
            _check_planes(tiff, path)
            if not tiff.series:
                raise InputError("a TIFF without images", where=path)
            if len(tiff.series) > 1:
                raise InputError(
                    f"{len(tiff.series)} image series, not one volume", where=path, fix="export one series"
                )
            series = tiff.series[0]
            shape = tuple(n for n in series.shape if n > 1) if len(series.shape) > 3 else series.shape
            if "S" in series.axes or len(shape) != 3:
                raise InputError(
                    f"shape {series.shape} (axes {series.axes}) is not a volume of grey values", where=path
                )
            if series.dtype is None or series.dtype.kind not in "biuf":
                raise InputError(f"voxels of type {series.dtype}, not densities", where=path)
            if series.nbytes > path.stat().st_size and series.keyframe.compression == 1:
                raise InputError(f"truncated: {path.stat().st_size} bytes for {series.nbytes} of voxels", where=path)
            size = _voxel_size(tiff)
            offset = series.dataoffset
            if offset is not None:
                dtype = series.dtype.newbyteorder(tiff.byteorder)
                stored = np.memmap(path, dtype, "r", offset, series.shape)
            else:
                z, y, x = shape
                return LazyReader(path, (z, y, x), series.dtype, size, lambda: _decode(path, (z, y, x)))
    except (InputError, OSError):
        raise
    except Exception as error:  # tifffile meets damaged tags with many kinds of error
        raise _unreadable(path, error) from None
    return ArrayReader(path, stored.reshape(shape), size)


def _check_planes(tiff: Any, path: Path) -> None:
    """Refuse OME metadata that declare millions of planes: `series` would make a record of each.

    Raises:
        InputError: more planes than any volume has.
    """
    pixels = _ome_pixels(tiff.ome_metadata) if tiff.is_ome and tiff.ome_metadata else {}
    sizes = [pixels.get(f"Size{axis}", "1") for axis in "CTZ"]
    declared = math.prod(int(size) for size in sizes)
    if not 0 < declared <= _MOST_PLANES:
        raise InputError(f"{' x '.join(sizes)} planes (C T Z) are declared, not one volume", where=path)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"not readable as TIFF ({type(error).__name__}: {str(error)[:120]})", where=path)


def _decode(path: Path, shape_zyx: tuple[int, int, int]) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            len(tiff.pages)
            return np.asarray(tiff.series[0].asarray()).reshape(shape_zyx)
    except Exception as error:
        raise _unreadable(path, error) from None


def _voxel_size(tiff: Any) -> tuple[float, float, float] | None:
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = angstroms_per(tiff.imagej_metadata.get("unit"))
        y, x = _resolution(tiff.pages[0])
        sizes = [tiff.imagej_metadata.get("spacing"), y, x]
    elif tiff.is_ome and tiff.ome_metadata:
        pixels = _ome_pixels(tiff.ome_metadata)
        unit = 1.0
        sizes = [_ome_size(pixels, axis) for axis in "ZYX"]
    else:
        return None
    known = [float(size) * unit for size in sizes if unit is not None and isinstance(size, int | float)]
    if len(known) != 3 or not all(0 < size < np.inf for size in known):
        return None
    return (known[0], known[1], known[2])


def _resolution(page: Any) -> tuple[float | None, float | None]:
    """Edge of a pixel along y and x: the reciprocals of pixels per unit."""
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 1)
        sizes.append(denominator / numerator if numerator else None)
    return sizes[0], sizes[1]


def _ome_pixels(text: str) -> dict[str, str]:
    from defusedxml.ElementTree import fromstring

    for element in fromstring(text).iter():
        if element.tag.rsplit("}", 1)[-1] == "Pixels":
            return dict(element.attrib)
    return {}


def _ome_size(pixels: dict[str, str], axis: str) -> float | None:
    unit = angstroms_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))  # OME's default unit
    size = pixels.get(f"PhysicalSize{axis}")
    return None if unit is None or size is None else float(size) * unit
