"""A tomogram in tiles: boxes read with zeros beyond its faces, score maps in files, and which tiles are finished."""

from __future__ import annotations

import hashlib
import json
import math
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robpicker_jax.system.files import write_text

_RECORD = "tiles.json"
_DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, SyntaxError, tokenize.TokenError)
"""What a record that cannot be read, or NumPy's look at the header of a damaged map, raises."""


@runtime_checkable
class Voxels(Protocol):
    """Anything that gives boxes of a tomogram, mean 0 and standard deviation 1, float32 (z, y, x)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, region: tuple[slice, slice, slice], /) -> np.ndarray: ...


def read_box(volume: Voxels, start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> np.ndarray:
    """A box of a volume, float32; 0 where it reaches beyond the faces."""
    box = np.zeros(tuple(shape_zyx), np.float32)
    inside, target = [], []
    for start, size, limit in zip(start_zyx, shape_zyx, volume.shape, strict=True):
        low, high = max(start, 0), min(start + size, limit)
        if low >= high:
            return box
        inside.append(slice(low, high))
        target.append(slice(low - start, high - start))
    box[target[0], target[1], target[2]] = volume[inside[0], inside[1], inside[2]]
    return box


@dataclass(frozen=True)
class Tiling:
    """How a volume is divided into cores of one shape; those at the far faces reach beyond them.

    Attributes:
        shape_zyx: the volume.
        core_zyx: shape of a core.
        rim_vox: width of the rim along the faces that no core covers.
    """

    shape_zyx: tuple[int, int, int]
    core_zyx: tuple[int, int, int]
    rim_vox: int = 0

    @classmethod
    def of(cls, shape_zyx: Sequence[int], largest: int, rim_vox: int = 0) -> Tiling:
        """Cores of about equal size whose edges are at most `largest` voxels."""
        edges = []
        for size in shape_zyx:
            inner = max(1, size - 2 * rim_vox)
            parts = math.ceil(inner / max(1, largest))
            edges.append(math.ceil(inner / parts))
        z, y, x = shape_zyx
        return cls((int(z), int(y), int(x)), (edges[0], edges[1], edges[2]), rim_vox)

    @property
    def starts(self) -> list[tuple[int, int, int]]:
        """First voxel of each core, z y x."""
        rim = self.rim_vox
        axes = [range(rim, size - rim, edge) for size, edge in zip(self.shape_zyx, self.core_zyx, strict=True)]
        return [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]

    def region(self, start: Sequence[int]) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
        """Where a core lies in the volume, and which part of the core that is."""
        rim = self.rim_vox
        ends = [min(a + e, s - rim) for a, e, s in zip(start, self.core_zyx, self.shape_zyx, strict=True)]
        z, y, x = (slice(a, b) for a, b in zip(start, ends, strict=True))
        cz, cy, cx = (slice(0, b - a) for a, b in zip(start, ends, strict=True))
        return (z, y, x), (cz, cy, cx)


@dataclass(eq=False)
class MapStore:
    """Maps of one tomogram and template that are filled tile by tile.

    With a folder they are files there, beside a record of the finished tiles, so that a search that was stopped goes on.
    What the record says is trusted only where the settings are the same.

    Args:
        shape_zyx: the tomogram.
        names: of the maps; "angles" is int32, all others are float32.
        folder: where they are kept; none: in memory.
        settings: all that the maps depend on, as JSON can hold it; with "core", `kept_core` finds the tiles' shape.
    """

    shape_zyx: tuple[int, int, int]
    names: tuple[str, ...]
    folder: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maps: dict[str, np.ndarray] = {}
        self.finished: set[tuple[int, int, int]] = set()
        types = {name: np.dtype(np.int32 if name == "angles" else np.float32) for name in self.names}
        if self.folder is None:
            self.maps = {name: np.zeros(self.shape_zyx, kind) for name, kind in types.items()}
            self._mark_empty()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._text = json.dumps([list(self.shape_zyx), list(self.names), self.settings], sort_keys=True, default=str)
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            if record["settings"] == self._text:
                self.maps = {name: self._mapped(name, "r+") for name in self.names}
                self.finished = {(z, y, x) for z, y, x in record["tiles"]}
        except _DAMAGED:  # no record, a damaged one, or maps that went away
            self.maps = {}
        if not self.maps or any(m.shape != self.shape_zyx or m.dtype != types[name] for name, m in self.maps.items()):
            self.finished = set()
            self._record.unlink(missing_ok=True)
            self.maps = {
                name: np.lib.format.open_memmap(self._path(name), "w+", kind, self.shape_zyx)
                for name, kind in types.items()
            }
            self._mark_empty()

    def _mark_empty(self) -> None:
        """Say that no angle has been found yet: in the rim none will be."""
        if "angles" in self.maps:
            self.maps["angles"][:] = -1

    @property
    def _record(self) -> Path:
        assert self.folder is not None
        return self.folder / _RECORD

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npy"

    def _mapped(self, name: str, mode: str) -> np.ndarray:
        return np.asanyarray(np.lib.format.open_memmap(self._path(name), mode))

    def put(self, tiling: Tiling, start: tuple[int, int, int], values: Mapping[str, np.ndarray]) -> None:
        """Store the maps of one core and record it as finished."""
        region, part = tiling.region(start)
        for name, stored in self.maps.items():
            stored[region] = values[name][part]
        self.finished.add(start)
        if self.folder is not None:
            for stored in self.maps.values():
                if isinstance(stored, np.memmap):
                    stored.flush()
            write_text(self._record, json.dumps({"settings": self._text, "tiles": sorted(self.finished)}))

    def waiting(self, tiling: Tiling) -> Iterator[tuple[int, int, int]]:
        """The cores that are not finished."""
        return (start for start in tiling.starts if start not in self.finished)


def kept_core(folder: Path, shape_zyx: Sequence[int]) -> tuple[int, int, int] | None:
    """The core of the tiles that a `MapStore` with the setting "core" left in a folder; None where there are none."""
    try:
        shape, _, settings = json.loads(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["settings"])
        z, y, x = (int(size) for size in settings["core"])
    except _DAMAGED:  # no record, or a damaged one
        return None
    return (z, y, x) if shape == list(shape_zyx) and min(z, y, x) > 0 else None


def mask_digest(mask: np.ndarray) -> str:
    """A text that differs wherever two masks do; plane by plane."""
    digest = hashlib.sha256()
    for plane in mask:
        digest.update(np.packbits(np.asarray(plane, bool)).tobytes())
    return digest.hexdigest()
