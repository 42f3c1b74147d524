"""One record type for particles, whatever file they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from robpicker_jax.annotations.columns import labels_by_name
from robpicker_jax.annotations.geometry import euler_from_matrix

if TYPE_CHECKING:
    import pandas


class NotFiniteError(ValueError):
    """A position that is NaN or infinite, or became so when it was scaled."""


_OPTIONAL = ("rotations", "scores", "cluster_sizes", "class_names", "tomograms")


@dataclass(frozen=True, eq=False)
class Particles:
    """A list of n particles as a struct of arrays, made from arrays or sequences of the same columns.

    Attributes:
        positions_vox: float64 (n, 3), x y z in voxels, the centre of voxel 0 at 0.0.
        labels: int32 (n,), class labels from 1; 0 where the file names no class that is known.
        rotations: float64 (n, 3, 3) or None. R maps the particle's reference frame to the tomogram's, both x y z:
            r_tomogram = R r_reference + position. A row unknown to the file is NaN.
        scores: float64 (n,) or None; higher is better, NaN where unknown.
        cluster_sizes: int64 (n,) or None; voxels of the cluster a pick was made from.
        class_names: str (n,) or None; the class as the file names it.
        tomograms: str (n,) or None; the tomogram as the file names it.
        extra: further columns of the file, each of length n, kept as they are.

    Raises:
        ValueError: when the arrays disagree in length or shape.
        NotFiniteError: a position is not finite.
    """

    positions_vox: np.ndarray
    labels: np.ndarray
    rotations: np.ndarray | None
    scores: np.ndarray | None
    cluster_sizes: np.ndarray | None
    class_names: np.ndarray | None
    tomograms: np.ndarray | None
    extra: Mapping[str, np.ndarray]

    def __init__(
        self,
        positions_vox: ArrayLike,
        labels: ArrayLike,
        rotations: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        cluster_sizes: ArrayLike | None = None,
        class_names: ArrayLike | None = None,
        tomograms: ArrayLike | None = None,
        extra: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        positions = np.asarray(positions_vox, dtype=np.float64)
        if positions.size == 0:
            positions = positions.reshape(0, 3)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise ValueError(f"positions_vox must have shape (n, 3), not {positions.shape}")
        if not np.isfinite(positions).all():
            raise NotFiniteError("positions_vox must be finite")
        n = len(positions)
        converted: dict[str, Any] = {
            "positions_vox": positions,
            "labels": _column("labels", labels, n, np.int32),
            "rotations": _column("rotations", rotations, n, np.float64, (3, 3)),
            "scores": _column("scores", scores, n, np.float64),
            "cluster_sizes": _column("cluster_sizes", cluster_sizes, n, np.int64),
            "class_names": _column("class_names", class_names, n, np.str_),
            "tomograms": _column("tomograms", tomograms, n, np.str_),
            "extra": {name: _column(name, values, n, None) for name, values in (extra or {}).items()},
        }
        if n and converted["labels"].min() < 0:
            raise ValueError("labels must not be negative")
        for name, value in converted.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.positions_vox)

    @classmethod
    def empty(cls) -> Particles:
        """No particles."""
        return cls(np.zeros((0, 3)), np.zeros(0, np.int32))

    def with_(self, **changes: Any) -> Particles:
        """A copy with some columns replaced."""
        return dataclasses.replace(self, **changes)

    def select(self, index: np.ndarray | slice | Sequence[int] | Sequence[bool]) -> Particles:
        """The particles that a mask, an index array or a slice selects, in that order."""
        chosen = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(chosen, np.ndarray) and chosen.size == 0:
            chosen = chosen.astype(np.intp)
        optional = {name: None if (v := getattr(self, name)) is None else v[chosen] for name in _OPTIONAL}
        extra = {name: values[chosen] for name, values in self.extra.items()}
        return Particles(self.positions_vox[chosen], self.labels[chosen], extra=extra, **optional)

    def to_dataframe(self) -> pandas.DataFrame:
        """The particles as a pandas table, one row each; columns that are not known are left out.

        Returns:
            x, y, z: position in voxels, the centre of voxel 0 at 0.0.
            class_label, class_name: the class.
            score, cluster_size: of a pick.
            rot_deg, tilt_deg, psi_deg: Euler angles in RELION's convention, degrees (see `geometry`); NaN where unknown.
            tomogram: its name.
            Further columns of the file follow under their own names.
        """
        import pandas

        columns: dict[str, Any] = dict(zip("xyz", self.positions_vox.T, strict=True))
        columns["class_label"] = self.labels
        known = {"class_name": self.class_names, "score": self.scores, "cluster_size": self.cluster_sizes}
        columns |= {name: values for name, values in known.items() if values is not None}
        if self.rotations is not None:
            angles = np.full((len(self), 3), np.nan)
            given = np.isfinite(self.rotations).all(axis=(1, 2))
            angles[given] = euler_from_matrix(self.rotations[given], "relion")
            columns |= dict(zip(("rot_deg", "tilt_deg", "psi_deg"), angles.T, strict=True))
        if self.tomograms is not None:
            columns["tomogram"] = self.tomograms
        columns |= {name: values for name, values in self.extra.items() if name not in columns}
        return pandas.DataFrame(columns)

    @staticmethod
    def concatenate(parts: Sequence[Particles]) -> Particles:
        """All particles of `parts`, in order; a column that only some of them have is filled with its unknown value.

        The unknown value is NaN for rotations, scores and numbers, 0 for cluster sizes, "" for text.
        """
        parts = [part for part in parts if len(part)]
        if not parts:
            return Particles.empty()
        optional = {}
        for name in _OPTIONAL:
            columns = [getattr(part, name) for part in parts]
            if any(column is not None for column in columns):
                optional[name] = _joined(columns, parts, 0 if name == "cluster_sizes" else None)
        names = list(dict.fromkeys(name for part in parts for name in part.extra))
        extra = {name: _joined([part.extra.get(name) for part in parts], parts) for name in names}
        return Particles(
            np.concatenate([part.positions_vox for part in parts]),
            np.concatenate([part.labels for part in parts]),
            extra=extra,
            **optional,
        )


def with_known_labels(particles: Particles, class_labels: Mapping[str, int]) -> Particles:
    """The particles, those without a label (0) labelled by their class's name where that is known."""
    names = particles.class_names
    if names is None or not class_labels or particles.labels.all():
        return particles
    return particles.with_(labels=labels_by_name(particles.labels, names.tolist(), class_labels))


def _column(name: str, values: Any, n: int, dtype: Any, tail: tuple[int, ...] = ()) -> np.ndarray | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=dtype)
    if array.size == 0 and n == 0:
        array = array.reshape(0, *tail)
    if array.shape != (n, *tail):
        raise ValueError(f"{name} must have shape {(n, *tail)}, not {array.shape}")
    return array


def _joined(columns: Sequence[np.ndarray | None], parts: Sequence[Particles], fill: float | None = None) -> np.ndarray:
    known = [column for column in columns if column is not None]
    if any(column.dtype.kind not in "biuf" for column in known):
        blocks = [np.full(len(p), "") if c is None else _text(c) for c, p in zip(columns, parts, strict=True)]
        return np.concatenate(blocks)
    dtype = np.result_type(*known)
    if len(known) < len(columns) and fill is None:
        dtype = np.result_type(dtype, np.float64)  # whole numbers have no NaN
    value = np.nan if fill is None else fill
    tail = known[0].shape[1:]
    filled = [np.full((len(p), *tail), value, dtype) if c is None else c for c, p in zip(columns, parts, strict=True)]
    return np.concatenate([column.astype(dtype) for column in filled])


def _text(column: np.ndarray) -> np.ndarray:
    if column.dtype.kind == "f":
        return np.array(["" if np.isnan(value) else repr(float(value)) for value in column])
    return column.astype(np.str_)
