"""Picks against truth, over any number of tomograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.bounds import in_mask
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config.schema import Config
from robpicker_jax.evaluation.bootstrap import Interval, Intervals, bootstrap_fbeta
from robpicker_jax.evaluation.curves import PrecisionRecallCurve, precision_recall_curve
from robpicker_jax.evaluation.groups import SIZE_GROUPS, size_groups
from robpicker_jax.evaluation.matching import (
    Counting,
    Pairs,
    assign_one_to_one,
    nearest_hits,
    pairs_in_instances,
    pairs_within,
)
from robpicker_jax.evaluation.results import ClassScore, Evaluation, GroupScore, LocalisationError
from robpicker_jax.evaluation.scores import Counts, Rates, mean_rates, rates
from robpicker_jax.system.errors import InputError

Rule = Literal["mask", "tolerance", "czii"]
CZII_BETA = 4.0
CZII_RADIUS_SHARE = 0.5


def evaluate(
    truth: Mapping[str, Particles],
    picks: Mapping[str, Particles],
    *,
    class_names: Sequence[str],
    rule: Rule = "mask",
    tolerance_vox: float = 10.0,
    beta: float | None = None,
    one_to_one: bool = True,
    radii_vox: Sequence[float] | None = None,
    instance_maps: Mapping[str, NDArray[np.integer]] | None = None,
    regions: Mapping[str, NDArray[np.bool_]] | None = None,
    weights: Mapping[str, float] | None = None,
    molecular_weights_kda: Sequence[float | None] | None = None,
    voxel_size_angstrom: float | None = None,
    missing_picks_as_empty: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate picks; counts are summed over the tomograms before rates are taken.

    The rules, each between a pick and a true particle of the same class:

    - "mask" (the paper's): the pick lies inside the particle's label. The label is taken from `instance_maps`, or,
      without them, is the sphere of the class's radius about the particle.
    - "tolerance": the pick lies within `tolerance_vox` (the paper's for DeePiCt's data, 10 voxels).
    - "czii": the pick lies within half the class's radius (CZII CryoET Object Identification challenge, 2024).

    With `one_to_one`, picks and particles are paired so that there are as many pairs as possible, and of such pairings
    the one of least total distance; pairs are the true positives, so that no particle and no pick counts twice. Without
    it, "mask" and "tolerance" count every pick that hits, as the paper's text has it (recall and F1 may exceed 1 where
    particles are picked more than once), and "czii" every particle that is hit, as the challenge's scorer does.

    Args:
        truth: true particles by tomogram.
        picks: picks by tomogram.
        class_names: name of class 1, 2, ….
        rule: see above.
        tolerance_vox: limit of the tolerance rule, included, voxels.
        beta: of F-beta; None: 4 under the CZII rule, else 1. F1 is always given too.
        one_to_one: see above.
        radii_vox: radius of class 1, 2, …, voxels.
        instance_maps: integers (z, y, x) by tomogram, 0 or 1 + index of the true particle that owns the voxel.
        regions: bool (z, y, x) by tomogram (a mask of the sample): only true particles centred in the region count,
            and picks that match one of them or, matching none, lie in the region. Tomograms without one count whole.
        weights: weight of each class in the weighted mean (CZII's score is that mean of F4); absent classes weigh 1.
        molecular_weights_kda: of class 1, 2, …, for the size groups; without them radii serve.
        voxel_size_angstrom: for errors in Å and size groups by radius.
        missing_picks_as_empty: a tomogram without an entry in `picks` has no picks; else that is an error.
        resamples: bootstrap resamples of the tomograms; intervals need at least two tomograms.
        seed: of the bootstrap.

    Raises:
        InputError: picks missing or of an unknown tomogram, unknown class labels, radii or instance maps that the rule
            needs and that are absent, lists whose lengths do not agree.
    """
    names = [str(name) for name in class_names]
    limits = _limits(rule, tolerance_vox, radii_vox, instance_maps is not None, len(names))
    beta = (CZII_BETA if rule == "czii" else 1.0) if beta is None else float(beta)
    if not beta > 0:
        raise InputError(f"must be positive, got {beta}", where="beta")
    if molecular_weights_kda is not None and len(molecular_weights_kda) != len(names):
        raise InputError(f"{len(molecular_weights_kda)} molecular weights for {len(names)} classes")
    unknown = [name for name in weights or () if name not in names]
    if unknown:
        raise InputError(f"weight of an unknown class {unknown[0]!r}", fix=f"classes are {', '.join(names)}")
    counting: Counting = "one_to_one" if one_to_one else ("particles" if rule == "czii" else "picks")

    judged = []
    for tomogram, true, picked in _together(truth, picks, missing_picks_as_empty):
        _check_labels(true, names, f"truth of {tomogram}")
        _check_labels(picked, names, f"picks of {tomogram}")
        if rule == "mask" and instance_maps is not None:
            if tomogram not in instance_maps:
                raise InputError("no instance map", where=tomogram, fix="give one for each tomogram, or none at all")
            pairs = pairs_in_instances(true, picked, instance_maps[tomogram], tomogram)
        else:
            pairs = pairs_within(true, picked, limits)
        region = None if regions is None else regions.get(tomogram)
        judged.append(_judge(tomogram, true, picked, pairs, counting, region))

    counts = np.array([[item.counts(label) for label in range(1, len(names) + 1)] for item in judged], dtype=np.int64)
    counts = counts.reshape(len(judged), len(names), 4)
    intervals = bootstrap_fbeta(counts, beta, resamples=resamples, seed=seed) if len(judged) > 1 and resamples else None
    groups = size_groups(molecular_weights_kda, radii_vox, voxel_size_angstrom, len(names))
    classes = tuple(
        _class_score(index, name, judged, counts, beta, counting, groups[index], intervals)
        for index, name in enumerate(names)
    )
    total = counts.sum(axis=0)
    return Evaluation(
        rule=rule,
        one_to_one=one_to_one,
        beta=beta,
        limits_vox=None if rule == "mask" and instance_maps is not None else tuple(float(limit) for limit in limits),
        voxel_size_angstrom=voxel_size_angstrom,
        tomograms=tuple(item.name for item in judged),
        counts=counts,
        classes=classes,
        macro=_mean(total, beta),
        micro=rates(Counts(*map(int, total.sum(axis=0))), beta),
        weighted=None if weights is None else _mean(total, beta, np.array([weights.get(name, 1.0) for name in names])),
        groups=_group_scores(groups, names, total, beta),
        macro_interval=None if intervals is None else intervals.macro,
        micro_interval=None if intervals is None else intervals.micro,
        matches={item.name: item.matches for item in judged},
        truth_counts={item.name: item.truth_counts for item in judged},
        pick_counts={item.name: item.pick_counts for item in judged},
    )


def options_from_config(config: Config) -> dict[str, Any]:
    """The keyword arguments of `evaluate` that a configuration knows."""
    species = config.data.species
    return {
        "class_names": [entry.name for entry in species],
        "rule": config.evaluation.rule,
        "tolerance_vox": config.evaluation.tolerance_vox,
        "beta": config.evaluation.beta,
        "one_to_one": config.evaluation.one_to_one,
        "radii_vox": [entry.radius_vox for entry in species],
        "molecular_weights_kda": [entry.molecular_weight_kda for entry in species],
        "voxel_size_angstrom": config.data.voxel_size_angstrom,
    }


@dataclass(frozen=True)
class _Judged:
    """One tomogram's particles, after the region, and which of them count."""

    name: str
    truth: Particles
    picks: Particles
    pairs: Pairs
    truth_counts: NDArray[np.bool_]
    pick_counts: NDArray[np.bool_]
    matches: NDArray[np.int64]
    counting: Counting

    def counts(self, label: int) -> tuple[int, int, int, int]:
        """True, picked, true positives and found of one class."""
        picked = self.pick_counts & (self.picks.labels == label)
        true = self.truth_counts & (self.truth.labels == label)
        if self.counting == "one_to_one":
            found = hits = int((picked & (self.matches >= 0)).sum())
        else:
            found = np.unique(self.pairs.truths[true[self.pairs.truths]]).size
            hits = found if self.counting == "particles" else int((picked & (self.matches >= 0)).sum())
        return int(true.sum()), int(picked.sum()), hits, found


def _judge(
    name: str,
    truth: Particles,
    picks: Particles,
    pairs: Pairs,
    counting: Counting,
    region: NDArray[np.bool_] | None,
) -> _Judged:
    def match(among: Pairs) -> NDArray[np.int64]:
        return assign_one_to_one(among, len(picks)) if counting == "one_to_one" else nearest_hits(among, len(picks))

    matches = match(pairs)
    truth_counts, pick_counts = np.ones(len(truth), dtype=bool), np.ones(len(picks), dtype=bool)
    if region is not None:
        truth_counts = in_mask(truth.positions_vox, region)
        # A pick goes with its particle: one beyond the border that hits a particle inside still counts, one inside
        # that hits a particle outside is neither right nor wrong.
        pick_counts = np.where(
            matches >= 0, truth_counts[matches] if len(truth) else False, in_mask(picks.positions_vox, region)
        )
        pairs = pairs.where(truth_counts[pairs.truths] & pick_counts[pairs.picks])
        matches = match(pairs)
    return _Judged(name, truth, picks, pairs, truth_counts, pick_counts, matches, counting)


def _class_score(
    index: int,
    name: str,
    judged: Sequence[_Judged],
    counts: NDArray[np.int64],
    beta: float,
    counting: Counting,
    group: str | None,
    intervals: Intervals | None,
) -> ClassScore:
    total = Counts(*map(int, counts[:, index].sum(axis=0)))
    errors = [np.empty(0)]
    for item in judged:
        hit = np.flatnonzero((item.matches >= 0) & (item.picks.labels == index + 1))
        apart = item.picks.positions_vox[hit] - item.truth.positions_vox[item.matches[hit]]
        errors.append(np.sqrt((apart**2).sum(axis=1)))
    interval: Interval | None = None if intervals is None else intervals.classes[index]
    return ClassScore(
        name=name,
        label=index + 1,
        counts=total,
        rates=rates(total, beta),
        curve=_curve(index + 1, judged, total.true, beta, counting),
        localisation=LocalisationError.of(np.concatenate(errors)),
        group=group,
        interval=interval,
    )


def _curve(
    label: int, judged: Sequence[_Judged], n_true: int, beta: float, counting: Counting
) -> PrecisionRecallCurve | None:
    """The class's curve; None when some pick of the class has no score, or there is nothing to rank."""
    chosen = [np.flatnonzero(item.pick_counts & (item.picks.labels == label)) for item in judged]
    scores = [np.full(len(item.picks), np.nan) if item.picks.scores is None else item.picks.scores for item in judged]
    if any(not np.isfinite(values[index]).all() for values, index in zip(scores, chosen, strict=True)):
        return None
    if not n_true and not any(index.size for index in chosen):
        return None
    return precision_recall_curve([item.pairs for item in judged], scores, chosen, n_true, beta=beta, counting=counting)


def _mean(total: NDArray[np.int64], beta: float, weights: NDArray[np.float64] | None = None) -> Rates:
    return mean_rates(total[:, 0], total[:, 1], total[:, 2], beta, weights)


def _group_scores(
    groups: Sequence[str | None], names: Sequence[str], total: NDArray[np.int64], beta: float
) -> tuple[GroupScore, ...]:
    found = []
    for group in SIZE_GROUPS:
        members = [index for index, other in enumerate(groups) if other == group]
        if members:
            counts = Counts(*map(int, total[members].sum(axis=0)))
            member_names = tuple(names[index] for index in members)
            found.append(GroupScore(group, member_names, counts, _mean(total[members], beta), rates(counts, beta)))
    return tuple(found)


def _limits(
    rule: str, tolerance_vox: float, radii_vox: Sequence[float] | None, has_instances: bool, n_classes: int
) -> NDArray[np.float64]:
    if rule not in get_args(Rule):
        raise InputError(f"unknown rule {rule!r}", where="rule", fix=f"use one of {', '.join(get_args(Rule))}")
    if rule == "tolerance":
        if not (np.isfinite(tolerance_vox) and tolerance_vox > 0):
            raise InputError(f"must be a positive number, got {tolerance_vox}", where="tolerance_vox")
        return np.full(n_classes, float(tolerance_vox))
    if rule == "mask" and has_instances:
        return np.full(n_classes, np.nan)
    if radii_vox is None:
        raise InputError(
            f"the {rule} rule needs the radius of each class",
            fix="give the radii or a configuration, or use the tolerance rule",
        )
    radii = np.asarray(radii_vox, dtype=np.float64)
    if radii.shape != (n_classes,) or not (np.isfinite(radii) & (radii > 0)).all():
        raise InputError(f"{n_classes} positive radii are needed, got {list(radii_vox)}", where="radii_vox")
    return radii * (CZII_RADIUS_SHARE if rule == "czii" else 1.0)


def _together(
    truth: Mapping[str, Particles], picks: Mapping[str, Particles], missing_as_empty: bool
) -> list[tuple[str, Particles, Particles]]:
    if not truth:
        raise InputError("no tomogram with true particles", where="truth")
    missing = [name for name in truth if name not in picks]
    if missing and not missing_as_empty:
        raise InputError(
            f"no picks for {len(missing)} of {len(truth)} tomograms: {', '.join(missing[:5])}",
            where="picks",
            fix="pick them, or say that a missing list means no picks",
        )
    strange = [name for name in picks if name not in truth]
    if strange:
        raise InputError(
            f"picks of {len(strange)} tomograms without truth: {', '.join(strange[:5])}",
            where="picks",
            fix="leave these picks out, or give their true particles",
        )
    return [(name, true, picks.get(name, Particles.empty())) for name, true in truth.items()]


def _check_labels(particles: Particles, names: Sequence[str], where: str) -> None:
    wrong = np.flatnonzero((particles.labels < 1) | (particles.labels > len(names)))
    if wrong.size:
        raise InputError(
            f"{wrong.size} class labels outside 1 … {len(names)}, the first {particles.labels[wrong[0]]}",
            where=where,
            fix=f"the classes are {', '.join(names)}",
        )
