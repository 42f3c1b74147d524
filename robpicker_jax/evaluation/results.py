"""What an evaluation finds, as records that turn into JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.evaluation.curves import PrecisionRecallCurve
from robpicker_jax.evaluation.intervals import Interval
from robpicker_jax.evaluation.judging import JudgedTomogram
from robpicker_jax.evaluation.scores import Counts, Rates, f_beta, mean_rates, none_if_nan, rates


@dataclass(frozen=True)
class LocalisationError:
    """Distances between matched picks and true particles, voxels."""

    mean_vox: float
    median_vox: float
    rms_vox: float
    percentile90_vox: float

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> LocalisationError | None:
        """Summary of distances (n,); None without any."""
        if distances.size == 0:
            return None
        return cls(
            float(distances.mean()),
            float(np.median(distances)),
            float(np.sqrt(np.mean(distances**2))),
            float(np.quantile(distances, 0.9)),
        )


@dataclass(frozen=True)
class Localisation:
    """Whether particles were found, whatever their class (SHREC's rule).

    Attributes:
        true, picked: particles and picks.
        located: particles with at least one pick in their label.
        located_twice: those of them with several.
        mean_distance_vox: mean distance of all picks in a label from its particle, whole voxels; None without any.
    """

    true: int
    picked: int
    located: int
    located_twice: int
    mean_distance_vox: float | None

    @classmethod
    def of(cls, judged: Sequence[JudgedTomogram]) -> Localisation:
        """Summed over tomograms."""
        own = [item.own for item in judged if item.own is not None]
        hits = sum(counts.hits for counts in own)
        return cls(
            true=sum(int(item.truth_counts.sum()) for item in judged),
            picked=sum(int(item.pick_counts.sum()) for item in judged),
            located=sum(counts.located for counts in own),
            located_twice=sum(counts.located_twice for counts in own),
            mean_distance_vox=sum(counts.distance_sum_vox for counts in own) / hits if hits else None,
        )

    @property
    def rates(self) -> Rates:
        """Recall: located over true; precision: located over picked."""
        return rates(Counts(self.true, self.picked, self.located, self.located))

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return asdict(self) | self.rates.as_dict()


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class over all tomograms.

    Attributes:
        name, label: the class.
        counts: true particles, picks and hits.
        rates: precision, recall, F1, F-beta.
        curve: precision against recall; None where picks have no scores.
        localisation: None without hits.
        group: size group, or None.
        interval: 95 % interval of F-beta over tomograms; None with fewer than three.
    """

    name: str
    label: int
    counts: Counts
    rates: Rates
    curve: PrecisionRecallCurve | None
    localisation: LocalisationError | None
    group: str | None
    interval: Interval | None

    @property
    def average_precision(self) -> float | None:
        """Area under the precision-recall curve; None without scores or without true particles."""
        return None if self.curve is None else none_if_nan(self.curve.average_precision)


@dataclass(frozen=True)
class GroupScore:
    """Scores of one size group: the mean over its classes (macro) and of its pooled counts (micro)."""

    name: str
    members: tuple[str, ...]
    counts: Counts
    macro: Rates
    micro: Rates


@dataclass(frozen=True)
class Evaluation:
    """Picks against truth.

    Attributes:
        rule, one_to_one, beta: how they were compared.
        limits_vox: largest distance of a hit for each class, None where instance maps decided.
        voxel_size_angstrom: or None.
        tomograms: names, in the order of `counts`.
        counts: int64 (tomograms, classes, 4): true, picked, true positives, found.
        classes: scores of each class.
        macro: mean over classes; classes with neither true particles nor picks are left out.
        micro: of the counts pooled over classes.
        weighted: mean over classes with the given weights, or None.
        groups: size groups that have members, small to large.
        macro_interval, micro_interval: 95 % intervals of F-beta over tomograms; None with fewer than three.
        localisation: under SHREC's rule, else None.
        matches: for each tomogram int64 (picks,), index of the true particle each pick hit, -1 for none.
        truth_counts: for each tomogram bool (true particles,), whether it counts: not those outside the region.
        pick_counts: for each tomogram bool (picks,), likewise; a pick that hits goes with its particle.
    """

    rule: str
    one_to_one: bool
    beta: float
    limits_vox: tuple[float, ...] | None
    voxel_size_angstrom: float | None
    tomograms: tuple[str, ...]
    counts: NDArray[np.int64]
    classes: tuple[ClassScore, ...]
    macro: Rates
    micro: Rates
    weighted: Rates | None
    groups: tuple[GroupScore, ...]
    macro_interval: Interval | None
    micro_interval: Interval | None
    localisation: Localisation | None
    matches: Mapping[str, NDArray[np.int64]]
    truth_counts: Mapping[str, NDArray[np.bool_]]
    pick_counts: Mapping[str, NDArray[np.bool_]]

    @property
    def macro_f1(self) -> float:
        """Mean F1 over classes; NaN when there was nothing to find and nothing was picked."""
        return self.macro.f1

    def left_out(self, tomogram: str | None = None) -> tuple[int, int]:
        """True particles and picks that do not count, in one tomogram or in all.

        They lie outside the masks, or are picks of particles that are taken (DeePiCt's rule).
        """
        names = self.tomograms if tomogram is None else (tomogram,)
        truth, picks = (
            sum(int(np.count_nonzero(~counts[name])) for name in names)
            for counts in (self.truth_counts, self.pick_counts)
        )
        return truth, picks

    def of_class(self, name: str) -> ClassScore:
        """The score of a class by its name; KeyError when there is none."""
        for score in self.classes:
            if score.name == name:
                return score
        raise KeyError(name)

    def as_dict(self, *, curves: bool = True) -> dict[str, Any]:
        """Everything but the matches as plain numbers, lists and dicts, None where undefined: ready for JSON."""
        total = self.counts.sum(axis=(0, 1))
        return {
            "rule": self.rule,
            "one_to_one": self.one_to_one,
            "beta": self.beta,
            "limits_vox": None if self.limits_vox is None else list(self.limits_vox),
            "voxel_size_angstrom": self.voxel_size_angstrom,
            "macro_f1": none_if_nan(self.macro.f1),
            "macro": self.macro.as_dict() | {"fbeta_interval": _list(self.macro_interval)},
            "micro": _counts(Counts(*map(int, total)))
            | self.micro.as_dict()
            | {"fbeta_interval": _list(self.micro_interval)},
            "weighted": None if self.weighted is None else self.weighted.as_dict(),
            "localisation": None if self.localisation is None else self.localisation.as_dict(),
            "classes": [self._class(score, curves) for score in self.classes],
            "groups": [
                {"name": group.name, "members": list(group.members)}
                | _counts(group.counts)
                | group.macro.as_dict()
                | {"micro": group.micro.as_dict()}
                for group in self.groups
            ],
            "tomograms": [self._tomogram(index) for index in range(len(self.tomograms))],
        }

    def _class(self, score: ClassScore, curves: bool) -> dict[str, Any]:
        row: dict[str, Any] = {"name": score.name, "label": score.label, "group": score.group}
        row |= _counts(score.counts) | score.rates.as_dict()
        row["fbeta_interval"] = _list(score.interval)
        row["average_precision"] = score.average_precision
        row["best_threshold"] = None if score.curve is None else none_if_nan(score.curve.best_threshold)
        row["best_fbeta"] = None if score.curve is None else none_if_nan(score.curve.best_fbeta)
        errors = None if score.localisation is None else asdict(score.localisation)
        if errors is not None and self.voxel_size_angstrom:
            errors["mean_angstrom"] = errors["mean_vox"] * self.voxel_size_angstrom
        row["localisation"] = errors
        if curves:
            row["curve"] = None if score.curve is None else score.curve.as_dict()
        return row

    def _tomogram(self, index: int) -> dict[str, Any]:
        counts = self.counts[index]
        macro = mean_rates(counts[:, 0], counts[:, 1], counts[:, 2], self.beta)
        rows = {}
        for score, row in zip(self.classes, counts, strict=True):
            f1 = f_beta(row[2], row[1], row[0])
            rows[score.name] = _counts(Counts(*map(int, row))) | {"f1": none_if_nan(f1)}
        name = self.tomograms[index]
        left_out = dict(zip(("true", "picked"), self.left_out(name), strict=True))
        return {"name": name, "macro_f1": none_if_nan(macro.f1), "left_out": left_out, "classes": rows}


def _counts(counts: Counts) -> dict[str, int]:
    return {
        "true": counts.true,
        "picked": counts.picked,
        "true_positives": counts.true_positives,
        "false_positives": counts.false_positives,
        "false_negatives": counts.false_negatives,
    }


def _list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
