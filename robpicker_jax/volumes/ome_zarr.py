"""OME-Zarr volumes (NGFF 0.4 and 0.5), as copick and the cryoET Data Portal keep them, through the tensorstore package.

A multiscale group holds levels of falling resolution. `tomogram.zarr` means its first level, `tomogram.zarr/2` or
`level=2` another one. The image's `axes` (or a Zarr 3 array's dimension names) say which axis is which; whatever their
order, voxels become (z, y, x). Without them the last three are z, y, x. Specification: https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.memory import machine_bytes
from robpicker_jax.volumes.units import angstroms_per
from robpicker_jax.volumes.volume import Slices, VolumeReader

_MOST_CHUNKS = 2_000_000  # of one read; each takes a look at the file system
_LARGEST_VOXEL = 1e9  # Å; beyond it a scale is damage
_INSTALL = "pip install 'robpicker-jax[zarr]'"


class _ZarrReader(VolumeReader):
    """Reads the chunks that a part touches, and nothing else."""

    def __init__(
        self, path: Path, store: Any, axes_zyx: tuple[int, int, int], voxel_size: tuple[float, float, float] | None
    ) -> None:
        z, y, x = (store.shape[axis] for axis in axes_zyx)
        super().__init__(path, (z, y, x), np.dtype(store.dtype.numpy_dtype), voxel_size)
        self._store: Any = store
        self._axes = axes_zyx

    def _stored(self, slices: Slices) -> np.ndarray:
        if self._store is None:
            raise ValueError(f"{self.path} is closed")
        bounds = [slice(*s.indices(n)) for s, n in zip(slices, self.shape_zyx, strict=True)]
        index: list[int | slice] = [0] * len(self._store.shape)
        for axis, bound in zip(self._axes, bounds, strict=True):
            index[axis] = bound
        sizes = [bound.stop - bound.start for bound in bounds]
        _check_memory(sizes, self._store, self.path)
        self._check_chunks(sizes)
        try:
            part = np.asarray(self._store[tuple(index)].read().result())
            return part.transpose([sorted(self._axes).index(axis) for axis in self._axes])
        except ValueError as error:  # a damaged chunk
            raise InputError(f"cannot be read ({str(error)[:160]})", where=self.path) from None

    def _check_chunks(self, sizes_zyx: Sequence[int]) -> None:
        """Refuse to look for millions of chunks, which a file of a few bytes may declare."""
        edges = [self._store.chunk_layout.read_chunk.shape[axis] or 1 for axis in self._axes]
        chunks = math.prod(-(-size // edge) + 1 for size, edge in zip(sizes_zyx, edges, strict=True) if size > edge)
        if chunks > _MOST_CHUNKS:
            what = f"chunks of {' x '.join(map(str, edges))} voxels (z, y, x): {chunks:,} of them would be read at once"
            raise InputError(what, where=self.path, fix="store the array in larger chunks")

    def close(self) -> None:
        self._store = None


def open_zarr(path: Path, level: int | None = None) -> VolumeReader:
    """Open one level of an OME-Zarr image, or a plain Zarr array.

    Args:
        path: the group `….zarr`, or an array within it.
        level: which level of the group; the first by default.

    Raises:
        InputError: no Zarr, no such level, not a 3D image, axes of unknown names, or tensorstore is not installed.
    """
    array, multiscale, dataset = _array_of(path, level)
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
    names = _axis_names(multiscale, store)
    axes = _spatial_axes(names, len(store.shape), path)
    if any(n != 1 for axis, n in enumerate(store.shape) if axis not in axes):
        raise InputError(f"array of shape {tuple(store.shape)}, not one volume", where=path)
    if 0 in store.shape:
        raise InputError(f"array of shape {tuple(store.shape)}: no voxels", where=path)
    if np.dtype(store.dtype.numpy_dtype).kind not in "biuf":
        raise InputError(f"voxels of type {store.dtype.name}, not densities", where=path)
    _check_memory([size or 0 for size in store.chunk_layout.read_chunk.shape or ()], store, path)
    return _ZarrReader(path, store, axes, _voxel_size(multiscale, dataset, axes, len(store.shape)))


def _check_memory(shape: Sequence[int], store: Any, path: Path) -> None:
    """Refuse to read what memory cannot hold: a file of a few bytes may declare any shape, and tensorstore ends the process.

    Raises:
        InputError: a part of this shape is too large.
    """
    needed = math.prod(map(int, shape)) * np.dtype(store.dtype.numpy_dtype).itemsize
    limit = machine_bytes()
    try:
        if limit is not None and needed > limit:
            raise MemoryError
        _ = [np.empty(max(needed, 0), np.uint8) for _ in range(2)]  # decoded chunks, and the part that they make up
    except (MemoryError, ValueError):
        what = f"{' x '.join(map(str, shape))} voxels (z, y, x) would take {needed / 2**30:.3g} GiB of memory"
        raise InputError(what, where=path, fix="correct the array's metadata, or use a smaller level") from None


def _axis_names(multiscale: dict[str, Any], store: Any) -> list[str] | None:
    """Names of the array's axes, as the image or else the array declares them; None where neither does.

    An axis that is declared to be of time or channels is called "t" or "c", whatever its name.
    """
    declared = multiscale.get("axes")
    if isinstance(declared, list) and declared:
        kinds = {"time": "t", "channel": "c"}
        named = [axis if isinstance(axis, dict) else {"name": axis} for axis in declared]
        return [kinds.get(str(axis.get("type")), str(axis.get("name")).lower()) for axis in named]
    labels = [str(label).lower() for label in store.domain.labels]
    return labels if {"x", "y", "z"} <= set(labels) else None


def _spatial_axes(names: list[str] | None, rank: int, path: Path) -> tuple[int, int, int]:
    """Which of the array's axes are z, y and x.

    Raises:
        InputError: fewer than three axes, names that are not one each of x, y and z besides t and c, or as many names as
            the array has no axes.
    """
    if rank < 3:
        raise InputError(f"an array of {rank} axes, not a volume", where=path)
    if names is None:
        return (rank - 3, rank - 2, rank - 1)
    spatial = [name for name in names if name not in ("t", "c")]
    if sorted(spatial) != ["x", "y", "z"] or len(names) != rank:
        raise InputError(
            f"axes {', '.join(names)} of an array of {rank} axes: not x, y and z, each once, besides t and c",
            where=path,
            fix="name the axes as they are in the image's metadata",
        )
    return (names.index("z"), names.index("y"), names.index("x"))


def _array_of(path: Path, level: int | None) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The array's folder, and what the image says of itself and of this level; nothing of an array that is in none."""
    multiscale = _multiscale(path)
    if multiscale is None:
        if not _is_array(path):
            raise InputError("neither a Zarr array nor an OME-Zarr image", where=path)
        parent = _multiscale(path.parent) or {}
        entry = next((d for d in _records(parent, "datasets") if d.get("path") == path.name), None)
        return path, {} if entry is None else parent, entry or {}
    datasets = _records(multiscale, "datasets")
    number = level or 0
    if not 0 <= number < len(datasets) or not isinstance(datasets[number].get("path"), str):
        raise InputError(f"no level {number}: the image has {len(datasets)}", where=path)
    name = datasets[number]["path"]
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"level {number} lies outside of the image ({name[:60]!r})", where=path)
    return path / name, multiscale, datasets[number]


def _records(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list in an image's metadata; what is no list, and what in it is no object, counts as absent."""
    found = content.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


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


def _voxel_size(
    multiscale: dict[str, Any], dataset: dict[str, Any], axes_zyx: tuple[int, int, int], rank: int
) -> tuple[float, float, float] | None:
    """Product of the level's and the image's scales, z y x in Å; None where a unit or a scale is missing."""
    declared = _records(multiscale, "axes")
    if len(declared) != rank:
        return None
    units = [angstroms_per(axis.get("unit")) for axis in declared]
    size = np.ones(rank)
    found = False
    for owner in (dataset, multiscale):
        for transformation in _records(owner, "coordinateTransformations"):
            scale = transformation.get("scale")
            if isinstance(scale, list) and len(scale) == rank and all(isinstance(s, int | float) for s in scale):
                try:
                    size, found = size * np.array([float(s) for s in scale]), True
                except OverflowError:  # a whole number of hundreds of digits
                    return None
    known = [float(size[axis]) * (units[axis] or 0.0) for axis in axes_zyx]
    return (known[0], known[1], known[2]) if found and all(0 < edge < _LARGEST_VOXEL for edge in known) else None
