"""Tomograms read by boxes from their files, normalised as they are read; and scalings that are found only once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.config.schema import DataConfig
from robpicker_jax.datasets.discovery import Tomogram
from robpicker_jax.datasets.streaming import StreamedTomogram
from robpicker_jax.system.files import write_text
from robpicker_jax.volumes.normalisation import Scaling


class MappedDensity:
    """A normalised tomogram that stays in its file: its boxes are those of `load_tomogram`'s array, bit for bit.

    It is indexed as arrays are, by three slices, and read as inference's readers are.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, tomogram: StreamedTomogram) -> None:
        self._tomogram = tomogram
        self.shape = self.shape_zyx = tomogram.shape_zyx

    def __getitem__(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        return self._tomogram.read(region)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a tomogram in a file is always copied")
        whole = self[slice(None), slice(None), slice(None)]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Normalised densities (z, y, x) of a box, float32."""
        return self[region]

    def release(self) -> None:
        """Let go of what the operating system keeps in memory of earlier reads."""
        self._tomogram.release()


class Scalings:
    """The scaling of each tomogram, kept in a file so that a second start need not read every voxel to find it.

    An entry holds for the files as they were: another size or time of change, another mask or method, and it does not.

    Args:
        path: JSON file; None keeps nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stored: dict[str, Any] = {}
        if path is None:
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or spoilt: it only saves time
            return
        self._stored = found if isinstance(found, dict) else {}

    def known(self, tomogram: Tomogram, data: DataConfig) -> Scaling | None:
        """The scaling that an earlier start found; None where there is none that still holds."""
        entry = self._stored.get(str(tomogram.volume_path.resolve()))
        try:
            if entry is None or entry["of"] != _stamp(tomogram, data):
                return None
            return Scaling(**{key: float(value) for key, value in entry["scaling"].items()})
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def remember(self, tomogram: Tomogram, data: DataConfig, found: Scaling) -> None:
        """Keep a scaling, until `save` in memory alone."""
        entry = {"of": _stamp(tomogram, data), "scaling": asdict(found)}
        self._stored[str(tomogram.volume_path.resolve())] = entry

    def save(self) -> None:
        """Write the file."""
        if self._path is not None:
            write_text(self._path, json.dumps(self._stored, indent=1) + "\n")


def _stamp(tomogram: Tomogram, data: DataConfig) -> list[Any]:
    """What a scaling depends on, short of the voxels themselves."""
    stamp: list[Any] = [data.normalise, data.invert_contrast]
    for path in (tomogram.volume_path, tomogram.mask_path):
        status = None if path is None else path.stat()
        stamp.append(None if status is None else [str(path), status.st_size, status.st_mtime_ns])
    return stamp
