"""OME-Zarr volumes (NGFF 0.4 and 0.5), as copick and the cryoET Data Portal keep them, through the tensorstore package.

A multiscale group holds levels of falling resolution. `tomogram.zarr` means its first level, `tomogram.zarr/2` or
`level=2` another one. Specification: https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.units import angstroms_per
from robpicker_jax.volumes.volume import Slices, VolumeReader

_INSTALL = "pip install 'robpicker-jax[zarr]'"


class _ZarrReader(VolumeReader):
    """Reads the chunks that a part touches, and nothing else."""

    def __init__(self, path: Path, store: Any, voxel_size: tuple[float, float, float] | None) -> None:
        z, y, x = store.shape[-3:]
        super().__init__(path, (z, y, x), np.dtype(store.dtype.numpy_dtype), voxel_size)
        self._store: Any = store

    def _stored(self, slices: Slices) -> np.ndarray:
        if self._store is None:
            raise ValueError(f"{self.path} is closed")
        bounds = [slice(*s.indices(n)) for s, n in zip(slices, self.shape_zyx, strict=True)]
        index = (0,) * (len(self._store.shape) - 3) + tuple(bounds)
        try:
            return np.asarray(self._store[index].read().result())
        except ValueError as error:  # a damaged chunk
            raise InputError(f"cannot be read ({str(error)[:160]})", where=self.path) from None

    def close(self) -> None:
        self._store = None


def open_zarr(path: Path, level: int | None = None) -> VolumeReader:
    """Open one level of an OME-Zarr image, or a plain Zarr array.

    Args:
        path: the group `….zarr`, or an array within it.
        level: which level of the group; the first by default.

    Raises:
        InputError: no Zarr, no such level, not a 3D image, or tensorstore is not installed.
    """
    array, size = _array_of(path, level)
    try:
        import tensorstore
    except ImportError:
        raise InputError("reading Zarr needs the tensorstore package", where=path, fix=_INSTALL) from None
    driver = "zarr3" if (array / "zarr.json").is_file() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(array.resolve())}}
    try:
        store = tensorstore.open(spec, read=True, open=True).result()
    except ValueError as error:
        raise InputError(f"not readable as Zarr ({str(error)[:160]})", where=path) from None
    if len(store.shape) < 3 or any(n != 1 for n in store.shape[:-3]):
        raise InputError(f"array of shape {tuple(store.shape)}, not one volume", where=path)
    if np.dtype(store.dtype.numpy_dtype).kind not in "biuf":
        raise InputError(f"voxels of type {store.dtype.name}, not densities", where=path)
    return _ZarrReader(path, store, size)


def _array_of(path: Path, level: int | None) -> tuple[Path, tuple[float, float, float] | None]:
    """The array's folder and its voxel size (z, y, x) in Å."""
    multiscale = _multiscale(path)
    if multiscale is None:
        if not _is_array(path):
            raise InputError("neither a Zarr array nor an OME-Zarr image", where=path)
        parent = _multiscale(path.parent)
        entry = next((d for d in (parent or {}).get("datasets", []) if d.get("path") == path.name), None)
        return path, None if parent is None or entry is None else _voxel_size(parent, entry)
    datasets = multiscale.get("datasets") or []
    number = level or 0
    if not 0 <= number < len(datasets) or not isinstance(datasets[number].get("path"), str):
        raise InputError(f"no level {number}: the image has {len(datasets)}", where=path)
    return path / datasets[number]["path"], _voxel_size(multiscale, datasets[number])


def _is_array(path: Path) -> bool:
    return (path / ".zarray").is_file() or _json(path / "zarr.json").get("node_type") == "array"


def _multiscale(path: Path) -> dict[str, Any] | None:
    attributes = _json(path / "zarr.json").get("attributes", {})
    ome = attributes.get("ome", {}) if isinstance(attributes, dict) else {}
    multiscales = (ome.get("multiscales") if isinstance(ome, dict) else None) or _json(path / ".zattrs").get(
        "multiscales"
    )
    if not isinstance(multiscales, list) or not multiscales or not isinstance(multiscales[0], dict):
        return None
    return multiscales[0]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error})", where=path) from None
    return content if isinstance(content, dict) else {}


def _voxel_size(multiscale: dict[str, Any], dataset: dict[str, Any]) -> tuple[float, float, float] | None:
    """Product of the level's and the image's scales, in Å; None where a unit or a scale is missing."""
    axes = [axis for axis in multiscale.get("axes", []) if isinstance(axis, dict)]
    units = [angstroms_per(axis.get("unit")) for axis in axes[-3:]]
    size = np.ones(3)
    found = False
    for transformations in (dataset.get("coordinateTransformations"), multiscale.get("coordinateTransformations")):
        for transformation in transformations or []:
            scale = transformation.get("scale") if isinstance(transformation, dict) else None
            if isinstance(scale, list) and len(scale) >= 3 and all(isinstance(s, int | float) for s in scale):
                size, found = size * np.array(scale[-3:], dtype=np.float64), True
    if not found or len(units) != 3 or None in units or not (size > 0).all():
        return None
    z, y, x = (float(s) * float(unit or 1.0) for s, unit in zip(size, units, strict=True))
    return (z, y, x)
