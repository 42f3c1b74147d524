"""How picks are compared with true particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.config import EvaluationConfig, Species
from robpicker_jax.evaluation.rules import CZII_WEIGHTS, RULES, Counting, RuleDefinition
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class EvaluationOptions:
    """The rule of a hit, and what is known of the classes.

    The rules, each between a pick and a true particle of the same class:

    - "mask" (the paper's): the pick lies inside the particle's label. The label is taken from instance maps, or,
      without them, is the sphere of the class's radius about the particle.
    - "tolerance": the pick lies within `tolerance_vox` (the paper's for DeePiCt's data, 10 voxels).
    - "czii": the pick lies within half the class's radius (CZII CryoET Object Identification challenge, 2024).

    With `one_to_one`, picks and particles are paired so that there are as many pairs as possible, and of such pairings
    the one of least total distance; pairs are the true positives, so that no particle and no pick counts twice. Without
    it, "mask" and "tolerance" count every pick that hits, as the paper's text has it (recall and F1 may exceed 1 where
    particles are picked more than once), and "czii" every particle that is hit, as the challenge's scorer does.

    The other rules count as published scorers do, whatever `one_to_one` says (`rules.RULES`): "czii_scorer" and "robpicker"
    every particle with a pick within half its radius (beta 4 and 1), "deepict" and "deepfinder" within `tolerance_vox`, "shrec"
    by the class of the first pick in a particle's label.

    Attributes:
        class_names: name of class 1, 2, ….
        rule: see above.
        tolerance_vox: limit of the tolerance rule, included, voxels.
        one_to_one: see above.
        beta: of F-beta; None: 4 under the CZII rule, else 1. F1 is always given too.
        radii_vox: radius of class 1, 2, …, voxels; None where the rule needs none.
        weights: weight of each class in the weighted mean (CZII's score is that mean of F4), 1 for classes that are not
            in it; None for no weighted mean, under "czii_scorer" the challenge's own weights where a class has its names.
        molecular_weights_kda: of class 1, 2, …, for the size groups; without them radii serve.
        voxel_size_angstrom: for errors in Å and size groups by radius.

    Raises:
        InputError: an unknown rule, a tolerance, beta or radius that is not positive, a weight of an unknown class, or
            radii or molecular weights of another number than the classes.
    """

    class_names: Sequence[str]
    rule: str = "mask"
    tolerance_vox: float = 10.0
    one_to_one: bool = True
    beta: float | None = None
    radii_vox: Sequence[float] | None = None
    weights: Mapping[str, float] | None = None
    molecular_weights_kda: Sequence[float | None] | None = None
    voxel_size_angstrom: float | None = None

    def __post_init__(self) -> None:
        names = [str(name) for name in self.class_names]
        if self.rule not in RULES:
            raise InputError(f"unknown rule {self.rule!r}", where="rule", fix=f"use one of {', '.join(RULES)}")
        if not (np.isfinite(self.tolerance_vox) and self.tolerance_vox > 0):
            raise InputError(f"must be a positive number, got {self.tolerance_vox}", where="tolerance_vox")
        if self.beta is not None and not self.beta > 0:
            raise InputError(f"must be positive, got {self.beta}", where="beta")
        if self.radii_vox is not None:
            radii = np.asarray(self.radii_vox, dtype=np.float64)
            if radii.shape != (len(names),) or not (np.isfinite(radii) & (radii > 0)).all():
                raise InputError(
                    f"{len(names)} positive radii are needed, got {list(self.radii_vox)}", where="radii_vox"
                )
        if self.molecular_weights_kda is not None and len(self.molecular_weights_kda) != len(names):
            raise InputError(f"{len(self.molecular_weights_kda)} molecular weights for {len(names)} classes")
        unknown = [name for name in self.weights or () if name not in names]
        if unknown:
            raise InputError(f"weight of an unknown class {unknown[0]!r}", fix=f"classes are {', '.join(names)}")

    @classmethod
    def from_config(
        cls, section: EvaluationConfig, species: Sequence[Species], *, voxel_size_angstrom: float | None = None
    ) -> EvaluationOptions:
        """The options that the `evaluation` section of a configuration and its species say."""
        return cls(
            class_names=[entry.name for entry in species],
            rule=section.rule,
            tolerance_vox=section.tolerance_vox,
            one_to_one=section.one_to_one,
            beta=section.beta,
            radii_vox=[entry.radius_vox for entry in species],
            weights=section.weights,
            molecular_weights_kda=[entry.molecular_weight_kda for entry in species],
            voxel_size_angstrom=voxel_size_angstrom,
        )

    @property
    def chosen_beta(self) -> float:
        """Beta of F-beta: the one given, else the rule's."""
        return self._definition.beta if self.beta is None else float(self.beta)

    @property
    def counting(self) -> Counting:
        """What counts as a true positive."""
        chosen: Counting = "one_to_one" if self.one_to_one else self._definition.many
        return self._definition.counting or chosen

    @property
    def chosen_weights(self) -> Mapping[str, float] | None:
        """Weights of the weighted mean: those given, else the challenge's under its scorer."""
        if self.weights is None and self.rule == "czii_scorer":
            return {name: CZII_WEIGHTS.get(name, 1.0) for name in self.class_names}
        return self.weights

    @property
    def _definition(self) -> RuleDefinition:
        return RULES[self.rule]

    def limits_vox(self) -> NDArray[np.float64]:
        """Largest distance of a hit for each class, float64 (c,), voxels.

        Raises:
            InputError: a rule that needs radii, without radii.
        """
        if self._definition.limit == "tolerance":
            return np.full(len(self.class_names), float(self.tolerance_vox))
        if self.radii_vox is None:
            raise InputError(
                f"the {self.rule} rule needs the radius of each class",
                fix="give the radii or a configuration, or use the tolerance rule",
            )
        return np.asarray(self.radii_vox, dtype=np.float64) * self._definition.share
