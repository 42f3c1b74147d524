"""Picks against truth, over any number of tomograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation.curves import PrecisionRecallCurve, precision_recall_curve
from robpicker_jax.evaluation.groups import SIZE_GROUPS, size_groups
from robpicker_jax.evaluation.intervals import Intervals, fbeta_intervals
from robpicker_jax.evaluation.judging import JudgedTomogram, judge, judge_as_published
from robpicker_jax.evaluation.matching import Pairs, pairs_in_instances, pairs_within
from robpicker_jax.evaluation.options import EvaluationOptions
from robpicker_jax.evaluation.results import ClassScore, Evaluation, GroupScore, Localisation, LocalisationError
from robpicker_jax.evaluation.rules import LABEL_RULES
from robpicker_jax.evaluation.scores import Counts, Rates, mean_rates, rates
from robpicker_jax.system.errors import InputError


def evaluate(
    truth: Mapping[str, Particles],
    picks: Mapping[str, Particles],
    options: EvaluationOptions,
    *,
    instance_maps: Mapping[str, NDArray[np.integer]] | None = None,
    regions: Mapping[str, NDArray[np.bool_]] | None = None,
    missing_picks_as_empty: bool = False,
) -> Evaluation:
    """Evaluate picks; counts are summed over the tomograms before rates are taken.

    Args:
        truth: true particles by tomogram.
        picks: picks by tomogram.
        options: the rule of a hit and the classes, see `EvaluationOptions`.
        instance_maps: integers (z, y, x) by tomogram, 0 or 1 + index of the true particle that owns the voxel; the mask
            rule's labels.
        regions: bool (z, y, x) by tomogram (a mask of the sample): only true particles centred in the region count,
            and picks that match one of them or, matching none, lie in the region. Tomograms without one count whole.
        missing_picks_as_empty: a tomogram without an entry in `picks` has no picks; else that is an error.

    Raises:
        InputError: picks missing or of an unknown tomogram, unknown class labels, radii or instance maps that the rule
            needs and that are absent.
    """
    by_instance = instance_maps if options.rule in LABEL_RULES else None
    limits = options.limits_vox() if by_instance is None else None
    names = [str(name) for name in options.class_names]
    judged = []
    for tomogram, true, picked in _together(truth, picks, missing_picks_as_empty):
        _check_labels(true, names, f"truth of {tomogram}")
        _check_labels(picked, names, f"picks of {tomogram}")
        region = None if regions is None else regions.get(tomogram)
        if options.counting in ("single", "first"):
            owners = None if by_instance is None else _instances(tomogram, by_instance)
            judged.append(
                judge_as_published(tomogram, true, picked, options.counting, len(names), limits, owners, region)
            )
        else:
            pairs = _candidates(tomogram, true, picked, limits, by_instance)
            judged.append(judge(tomogram, true, picked, pairs, options.counting, region))
    return _evaluation(judged, names, options, limits)


def _candidates(
    tomogram: str,
    true: Particles,
    picked: Particles,
    limits: NDArray[np.float64] | None,
    instance_maps: Mapping[str, NDArray[np.integer]] | None,
) -> Pairs:
    """Picks and true particles of one tomogram that may count as hits: by distance, or by the owner of the voxel."""
    if limits is not None:
        return pairs_within(true, picked, limits)
    return pairs_in_instances(true, picked, _instances(tomogram, instance_maps or {}), tomogram)


def _instances(tomogram: str, instance_maps: Mapping[str, NDArray[np.integer]]) -> NDArray[np.integer]:
    if tomogram not in instance_maps:
        raise InputError("no instance map", where=tomogram, fix="give one for each tomogram, or none at all")
    return instance_maps[tomogram]


def _evaluation(
    judged: Sequence[JudgedTomogram],
    names: Sequence[str],
    options: EvaluationOptions,
    limits: NDArray[np.float64] | None,
) -> Evaluation:
    """The scores of all classes and of their means, from the tomograms' matches."""
    beta = options.chosen_beta
    counts = np.array([[item.counts(label) for label in range(1, len(names) + 1)] for item in judged], dtype=np.int64)
    counts = counts.reshape(len(judged), len(names), 4)
    intervals = fbeta_intervals(counts, beta)
    groups = size_groups(options.molecular_weights_kda, options.radii_vox, options.voxel_size_angstrom, len(names))
    classes = tuple(
        _class_score(index, name, judged, counts, options, groups[index], intervals) for index, name in enumerate(names)
    )
    total = counts.sum(axis=0)
    by_name = options.chosen_weights
    weights = None if by_name is None else np.array([by_name.get(name, 1.0) for name in names])
    return Evaluation(
        rule=options.rule,
        one_to_one=options.counting == "one_to_one",
        beta=beta,
        limits_vox=None if limits is None else tuple(float(limit) for limit in limits),
        voxel_size_angstrom=options.voxel_size_angstrom,
        tomograms=tuple(item.name for item in judged),
        counts=counts,
        classes=classes,
        macro=_mean(total, beta),
        micro=rates(Counts(*map(int, total.sum(axis=0))), beta),
        weighted=None if weights is None else _mean(total, beta, weights),
        groups=_group_scores(groups, names, total, beta),
        macro_interval=intervals.macro,
        micro_interval=intervals.micro,
        localisation=Localisation.of(judged) if options.counting == "first" else None,
        matches={item.name: item.matches for item in judged},
        truth_counts={item.name: item.truth_counts for item in judged},
        pick_counts={item.name: item.pick_counts for item in judged},
    )


def _class_score(
    index: int,
    name: str,
    judged: Sequence[JudgedTomogram],
    counts: NDArray[np.int64],
    options: EvaluationOptions,
    group: str | None,
    intervals: Intervals,
) -> ClassScore:
    total = Counts(*map(int, counts[:, index].sum(axis=0)))
    errors = [np.empty(0)]
    for item in judged:
        hit = np.flatnonzero((item.matches >= 0) & (item.picks.labels == index + 1))
        apart = item.picks.positions_vox[hit] - item.truth.positions_vox[item.matches[hit]]
        errors.append(np.sqrt((apart**2).sum(axis=1)))
    return ClassScore(
        name=name,
        label=index + 1,
        counts=total,
        rates=rates(total, options.chosen_beta),
        curve=_curve(index + 1, judged, total.true, options),
        localisation=LocalisationError.of(np.concatenate(errors)),
        group=group,
        interval=intervals.classes[index],
    )


def _curve(
    label: int, judged: Sequence[JudgedTomogram], n_true: int, options: EvaluationOptions
) -> PrecisionRecallCurve | None:
    """The class's curve; None when some pick of the class has no score, there is nothing to rank, or by a scorer's rule."""
    chosen = [np.flatnonzero(item.pick_counts & (item.picks.labels == label)) for item in judged]
    scores = [np.full(len(item.picks), np.nan) if item.picks.scores is None else item.picks.scores for item in judged]
    if options.counting in ("single", "first"):
        return None
    if any(not np.isfinite(values[index]).all() for values, index in zip(scores, chosen, strict=True)):
        return None
    if not n_true and not any(index.size for index in chosen):
        return None
    pairs = [item.pairs for item in judged]
    return precision_recall_curve(pairs, scores, chosen, n_true, beta=options.chosen_beta, counting=options.counting)


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
    unknown = [name for name in picks if name not in truth]
    if unknown:
        raise InputError(
            f"picks of {len(unknown)} tomograms without truth: {', '.join(unknown[:5])}",
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
