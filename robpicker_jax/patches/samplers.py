"""Samplers, by name: which tomogram, which centre and which class each patch of a batch has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from robpicker_jax.patches.tomogram_set import PatchPlan, TomogramSet
from robpicker_jax.system.errors import InputError

Draw = Callable[[np.random.Generator], PatchPlan]
"""One patch from random numbers: a pure function of the generator's state, so that a batch can be drawn again."""


@dataclass(frozen=True)
class SamplerSettings:
    """What the configuration says about the centres of patches.

    Attributes:
        background_share: share of patches that lie anywhere instead of around a particle.
        shift_vox: largest shift of a patch from its particle along each axis, voxels.
        class_weights: how often class 1, 2, … is drawn, where the sampler asks; None: all alike.
    """

    background_share: float
    shift_vox: int
    class_weights: tuple[float, ...] | None = None


class Sampler(Protocol):
    """The contract of a sampler: from a set of tomograms to a function that draws one patch.

    It is called once for each set, so that whatever takes time is done there; the function that it returns is called
    for every patch, with a generator of its own, and must take randomness from nowhere else. To add a sampler, write
    such a function and put it into `SAMPLERS`; configurations then name it in `patches.train_sampler` or
    `patches.meta_sampler`.
    """

    def __call__(self, tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
        """Prepare the draws.

        Args:
            tomograms: what to draw from; `anywhere` and `around` make the plans.
            settings: shares and shifts.

        Raises:
            InputError: the set cannot be drawn from in this way.
        """
        ...


def particles(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """Every particle equally likely, so that classes are as frequent as in the annotations; a share anywhere."""
    if settings.background_share < 1:
        tomograms.require_particles()

    def draw(rng: np.random.Generator) -> PatchPlan:
        if rng.random() < settings.background_share:
            return tomograms.anywhere(rng)
        return tomograms.around(int(rng.integers(tomograms.n_particles)), rng, settings.shift_vox)

    return draw


def class_balanced(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """Every class that is present equally likely, then every particle of it; a share anywhere."""
    if settings.background_share < 1:
        tomograms.require_particles()
    members = [np.flatnonzero(tomograms.labels == label) for label in np.unique(tomograms.labels)]

    def draw(rng: np.random.Generator) -> PatchPlan:
        if settings.background_share and rng.random() < settings.background_share:
            return tomograms.anywhere(rng)
        of_class = members[rng.integers(len(members))]
        return tomograms.around(int(of_class[rng.integers(len(of_class))]), rng, settings.shift_vox)

    return draw


def bootstrap(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """DeepFinder's bootstrap: as `class_balanced`, and no patch that lies anywhere, whatever the settings say."""
    return class_balanced(tomograms, replace(settings, background_share=0.0))


def class_aware(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """The published RobPicker's crops: a tomogram, then a class by its weight, then a particle of it, anywhere in the patch.

    Every tomogram is equally likely, and of the patches that hold the particle's voxel and lie in the volume every one.
    Classes that a tomogram does not have are left out there. A share lies anywhere; shifts are not used.

    Raises:
        InputError: weights of another number than the classes, or a tomogram in which no class has a weight.
    """
    weights = settings.class_weights
    if settings.background_share < 1:
        tomograms.require_particles()
    most = int(tomograms.labels.max(initial=0))
    if weights is not None and len(weights) < most:
        raise InputError(f"{len(weights)} weights for {most} classes", where="patches.class_weights")
    of_class = np.array([0.0, *(weights or (1.0,) * most)])
    drawable = []
    for members in tomograms.by_tomogram:
        present = np.unique(tomograms.labels[members])
        chance = of_class[present]
        if chance.sum() > 0:
            groups = [members[tomograms.labels[members] == label] for label in present]
            drawable.append((groups, chance / chance.sum()))
    if not drawable and settings.background_share < 1:
        raise InputError(f"the {tomograms.name} has no particle with a weight", where="patches.class_weights")

    def draw(rng: np.random.Generator) -> PatchPlan:
        if rng.random() < settings.background_share:
            return tomograms.anywhere(rng)
        groups, chance = drawable[rng.integers(len(drawable))]
        group = groups[int(rng.choice(len(groups), p=chance))]
        return tomograms.holding(int(group[rng.integers(len(group))]), rng)

    return draw


def uniform(tomograms: TomogramSet, settings: SamplerSettings) -> Draw:
    """Every position of a patch equally likely, wherever the particles are; the settings are ignored."""
    return tomograms.anywhere


SAMPLERS: dict[str, Sampler] = {
    "particles": particles,
    "class_balanced": class_balanced,
    "bootstrap": bootstrap,
    "class_aware": class_aware,
    "uniform": uniform,
}
"""The samplers by the names that `patches.train_sampler` and `patches.meta_sampler` use."""
