"""What is reviewed: a list of particles, and what holds for those that nobody decides on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.auditing.scoring import KINDS
from robpicker_jax.system.errors import InputError

_AUDIT = ("kind", "row", "suggested_class", "suggested_x_vox", "suggested_y_vox", "suggested_z_vox")
"""Columns by which the table of an audit is known (`auditing.examine.suspicions`)."""
_OF_SUSPICIONS = (*_AUDIT, "false", "wrong_class", "displaced", "correction")
_SAME_VOX = 0.01


@dataclass(frozen=True)
class Suggestion:
    """What an audit would do about a row.

    Attributes:
        kind: "false", "wrong_class", "displaced" or "missing".
        label: the class that it suggests.
        at: the position that it suggests, x y z in voxels.
    """

    kind: str
    label: int
    at: tuple[float, float, float]


@dataclass(frozen=True)
class ReviewList:
    """The particles of one tomogram that are reviewed.

    Attributes:
        name: the tomogram.
        particles: n particles, labels counted from 1 in the order of `class_names`.
        class_names: name of class 1, 2, ….
        suggestions: what an audit suggests for each; None where the particles are picks. Picks that nobody decides on
            stay where their score reaches the threshold of their class. Of an audit, annotations stay and missing
            particles stay out until somebody decides otherwise; scores are those of the suspicion.
        voxel_size_angstrom: of the tomogram, None where it is not known.
        shape_zyx: of the tomogram, voxels.
        source: of an audit, the list that was audited, whose columns the annotations then keep; None: not at hand.
    """

    name: str
    particles: Particles
    class_names: Sequence[str]
    suggestions: Sequence[Suggestion] | None = None
    voxel_size_angstrom: float | None = None
    shape_zyx: tuple[int, int, int] | None = None
    source: Particles | None = None

    @property
    def plain(self) -> Particles:
        """The particles without what an audit says of them: its columns, and its scores, which are of suspicions."""
        if self.suggestions is None:
            return self.particles
        extra = {name: values for name, values in self.particles.extra.items() if name not in _OF_SUSPICIONS}
        bare = self.particles.with_(scores=None, extra=extra)
        if self.source is None:
            return bare
        row = np.asarray(self.particles.extra["row"], np.int64)
        of_missing = len(self.source) + np.cumsum(row == 0) - 1
        return Particles.concatenate([self.source, bare.select(row == 0)]).select(
            np.where(row > 0, row - 1, of_missing)
        )

    def with_source(self, source: Particles) -> ReviewList:
        """The same rows of an audit, with the list that was audited.

        Raises:
            InputError: it is another list.
        """
        row = np.asarray(self.particles.extra["row"], np.int64)
        rows = self.particles.select(row > 0)
        same = self.suggestions is not None and sorted(row[row > 0].tolist()) == list(range(1, len(source) + 1))
        if not same or not np.allclose(rows.positions_vox, source.positions_vox[row[row > 0] - 1], atol=_SAME_VOX):
            raise InputError("not the list that was audited", where=self.name, fix="give the one that `audit` has read")
        return replace(self, source=source)

    def stays(self, min_scores: Mapping[str, float]) -> np.ndarray:
        """Which of the particles stay where nobody decides, bool (n,)."""
        if self.suggestions is not None:
            return np.array([entry.kind != "missing" for entry in self.suggestions], bool)
        scores = self.particles.scores
        if scores is None:
            return np.ones(len(self.particles), bool)
        least = np.array([0.0, *(min_scores.get(name, -np.inf) for name in self.class_names)])
        least[0] = min(least[1:], default=-np.inf)
        known = np.where(self.particles.labels < len(least), self.particles.labels, 0)
        return np.asarray(np.isnan(scores) | (scores >= least[known]))

    @classmethod
    def of_audit(
        cls,
        name: str,
        rows: Particles,
        class_names: Sequence[str],
        voxel_size_angstrom: float | None = None,
        shape_zyx: tuple[int, int, int] | None = None,
    ) -> ReviewList:
        """The rows of an audit's table that are of one tomogram.

        Raises:
            InputError: columns are missing, a class that is not among `class_names`, or an unknown kind.
        """
        missing = [column for column in _AUDIT if column not in rows.extra]
        if missing:
            fix = "give the audit.csv that `audit` wrote"
            raise InputError(f"no column {missing[0]}", where="the audit's table", fix=fix)
        label_of = {known: label for label, known in enumerate(class_names, start=1)}
        suggestions = []
        for index in range(len(rows)):
            suggested, kind = (str(rows.extra[column][index]) for column in ("suggested_class", "kind"))
            for what, value, known in (("class", suggested, label_of), ("kind", kind, KINDS)):
                if value not in known:
                    what = f"{what} {value!r} is unknown (row {index + 1})"
                    raise InputError(what, where="the audit's table", fix=f"known: {', '.join(known)}")
            x, y, z = (float(rows.extra[column][index]) for column in _AUDIT[3:])
            suggestions.append(Suggestion(kind, label_of[suggested], (x, y, z)))
        return cls(name, rows, class_names, tuple(suggestions), voxel_size_angstrom, shape_zyx)


def is_audit(particles: Particles) -> bool:
    """Whether a list is the table of an audit."""
    return all(column in particles.extra for column in _AUDIT)


def fingerprint(particles: Particles) -> str:
    """What tells a list from another one: a hash of its positions and labels, so that decisions meet their own list."""
    content = np.ascontiguousarray(particles.positions_vox, "<f8").tobytes()
    content += np.ascontiguousarray(particles.labels, "<i4").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
