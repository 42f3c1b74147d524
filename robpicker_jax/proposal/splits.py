"""Which tomogram is for what: the best fitting list is proposed as the clean one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import SplitsConfig
from robpicker_jax.datasets.flat_folder import assigned_splits, named_splits
from robpicker_jax.diagnosis.observation import Observation
from robpicker_jax.system.errors import InputError

_FEWEST_FOR_TEST, _FEWEST_FOR_VAL = 3, 4
"""So many annotated tomograms must remain before one of them is kept to test on, or to choose the best model."""

_NOISE = 3.0
"""Scores of lists that have nothing to do with the density stay below this; so says the doctor's page too."""

_NOT_SEEN = (
    f"; a score below {_NOISE:g} is no more than noise gives, so it does not tell which list is the best: choose by what you "
    "know (--meta NAME), or see first what `robpicker doctor` says of the lists"
)

_PLAIN = NameRule()


@dataclass(frozen=True)
class ProposedSplits:
    """The splits, and why.

    Attributes:
        splits: named tomograms; those of train are the rest. Where a single one is annotated it is of train, and there is
            no meta.
        reason: of the choice of meta, or of train where there is no meta, in words.
        split_of: the split of each tomogram that is in one, by its full name.
    """

    splits: SplitsConfig
    reason: str
    split_of: Mapping[str, str]


def propose_splits(
    observations: Sequence[Observation],
    scores: Sequence[float],
    n_species: int,
    *,
    meta: Sequence[str] = (),
    test: Sequence[str] = (),
    val: Sequence[str] = (),
    rule: NameRule = _PLAIN,
) -> ProposedSplits:
    """Splits of a flat folder or a copick project.

    Args:
        observations: its tomograms with their particles.
        scores: how well the list of each fits its density.
        n_species: number of species, all of which meta needs.
        meta, test, val: those that the user names, by names or patterns.
        rule: which names mean the same tomogram.

    Raises:
        InputError: no tomogram with particles is left for train or for meta, a name that no tomogram has, a tomogram in
            two splits, or one of meta or val without particles.
    """
    folder = observations[0].tomogram.volume_path.parent if observations else Path()
    has_list = {o.tomogram.name: o.particles is not None for o in observations}
    given = SplitsConfig((), tuple(meta), tuple(val), tuple(test))
    chosen = named_splits(list(has_list), given, rule, where=folder, key="--")
    score = {o.tomogram: value for o, value in zip(observations, scores, strict=True)}
    annotated = [o for o in observations if o.particles is not None and len(o.particles)]
    _check_annotated(chosen, {o.tomogram.name for o in annotated}, folder)
    free = [o for o in annotated if o.tomogram.name not in chosen]
    if len(annotated) == len(free) == 1:  # named, since a flat folder is known by its splits
        splits = SplitsConfig((_name(free[0], observations, rule),), (), (), tuple(test))
        split_of = assigned_splits(has_list, splits, rule, where=folder, key="--")
        return ProposedSplits(splits, "the only annotated tomogram", split_of)
    if not free:
        raise InputError(
            f"{len(annotated)} annotated tomogram{'s' * (len(annotated) != 1)}, and none is left for train",
            where=folder if observations else "",
            fix="annotate another one, name fewer for meta, val and test, or say where lists are with --lists",
        )
    reason = "as given"
    if not meta:
        if len(free) < 2:
            raise InputError("no tomogram is left for meta", where="--test", fix="name fewer tomograms")
        ranked = sorted(free, key=lambda o: (_species(o), score[o.tomogram]), reverse=True)
        best = ranked[0]
        meta = (_name(best, observations, rule),)
        free.remove(best)
        reason = (
            f"its list fits the density best (the doctor's score {score[best.tomogram]:.1f}"
            + (f"; next {score[ranked[1].tomogram]:.1f}" if len(ranked) > 1 else "")
            + (f"; {_species(best)} of {n_species} species" if _species(best) < n_species else "")
            + ")"
            + (_NOT_SEEN if score[best.tomogram] < _NOISE else "")
        )
    unlisted = len(annotated) < len(observations)
    if not test and not unlisted and len(free) >= _FEWEST_FOR_TEST:
        last = min(free, key=lambda o: score[o.tomogram])
        test = (_name(last, observations, rule),)
        free.remove(last)
    if not val and len(free) >= _FEWEST_FOR_VAL:
        second = max(free, key=lambda o: score[o.tomogram])
        val = (_name(second, observations, rule),)
        free.remove(second)
    splits = SplitsConfig((), tuple(meta), tuple(val), tuple(test))
    return ProposedSplits(splits, reason, assigned_splits(has_list, splits, rule, where=folder, key="--"))


def _check_annotated(chosen: Mapping[str, str], annotated: Set[str], folder: Path) -> None:
    for name, split in chosen.items():
        if split in ("meta", "val") and name not in annotated:
            shown = ", ".join(sorted(annotated)[:6]) or "none"
            fix = f"those with particles: {shown}; --lists says where others lie"
            raise InputError(f"--{split}: {name} has no particles", where=folder, fix=fix)


def _species(observation: Observation) -> int:
    return 0 if observation.particles is None else len(np.unique(observation.particles.labels))


def _name(observation: Observation, everything: Sequence[Observation], rule: NameRule) -> str:
    """The short name of a tomogram: without what says how it was made, where that is enough to tell it."""
    short = _without_endings(observation.tomogram.name, rule)
    alike = [other for other in everything if rule.same(short, other.tomogram.name)]
    return short if len(alike) == 1 else observation.tomogram.name


def _without_endings(name: str, rule: NameRule) -> str:
    key = rule.key(name)
    start = name.lower().find(key)
    return name[start : start + len(key)] if start >= 0 else name
