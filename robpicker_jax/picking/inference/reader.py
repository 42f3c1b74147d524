"""What inference needs of a tomogram: its shape, and boxes of normalised densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Reader(Protocol):
    """A tomogram that is read by boxes, from several threads at once."""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        ...

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Normalised densities (z, y, x) of a box, float32."""
        ...

    def release(self) -> None:
        """Free memory that only earlier reads needed."""
        ...


@dataclass(frozen=True)
class ArrayReader:
    """A tomogram that is in memory already."""

    data: np.ndarray

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels."""
        z, y, x = self.data.shape
        return z, y, x

    def read(self, region: tuple[slice, slice, slice]) -> np.ndarray:
        """Densities of a box."""
        return np.asarray(self.data[region], dtype=np.float32)

    def release(self) -> None:
        """Nothing to free: the array belongs to the caller."""
