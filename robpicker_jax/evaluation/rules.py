"""The rules by which picks are compared with true particles, by name, and the words that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Counting = Literal["one_to_one", "picks", "particles", "greedy", "single", "first"]
"""What a true positive is.

`one_to_one`: a matched pair; `picks`: any pick with a candidate (the paper's literal rule); `particles`: any true particle
with a candidate (CZII's scorer); `greedy`: picks by falling score take the nearest free particle, and one that finds only
taken ones counts neither way (DeePiCt's); `single`: a true particle with exactly one pick near it, of whatever class
(DeepFinder's); `first`: a true particle gets the class of the first pick in its label (SHREC's).
"""

Rule = Literal["mask", "tolerance", "czii", "czii_scorer", "robpicker", "deepict", "deepfinder", "shrec"]


@dataclass(frozen=True)
class RuleDefinition:
    """A rule of comparison.

    Attributes:
        text: when a pick is a hit, as half a sentence.
        limit: what the largest distance of a hit is: the tolerance, or a share of the class's radius.
        share: that share.
        counting: how a published scorer counts, whatever `one_to_one` says; None: by `one_to_one`.
        many: counting without `one_to_one`, where that is the user's choice.
        beta: of F-beta, unless the user gives one.
    """

    text: str
    limit: Literal["tolerance", "radius"]
    share: float = 1.0
    counting: Counting | None = None
    many: Counting = "picks"
    beta: float = 1.0


RULES: dict[str, RuleDefinition] = {
    "mask": RuleDefinition("a pick inside a true particle's label", "radius"),
    "tolerance": RuleDefinition("a pick within the tolerance of a true particle", "tolerance"),
    "czii": RuleDefinition(
        "a pick within half a radius of a true particle (CZII)", "radius", 0.5, many="particles", beta=4.0
    ),
    "czii_scorer": RuleDefinition(
        "a true particle within half a radius of a pick, as CZII's scorer counts", "radius", 0.5, "particles", beta=4.0
    ),
    "robpicker": RuleDefinition(
        "a true particle within half a radius of a pick, as the published RobPicker counts", "radius", 0.5, "particles"
    ),
    "deepict": RuleDefinition(
        "a pick within the tolerance of a free true particle, repeated ones left out, as DeePiCt counts",
        "tolerance",
        counting="greedy",
    ),
    "deepfinder": RuleDefinition(
        "a true particle with exactly one pick within the tolerance, as DeepFinder counts",
        "tolerance",
        counting="single",
    ),
    "shrec": RuleDefinition(
        "a true particle whose label's first pick has its class, as SHREC 2019 counts", "radius", counting="first"
    ),
}
"""Name → rule."""

LABEL_RULES = ("mask", "shrec")
"""Rules for which the labels of true particles decide: spheres, or shapes where they are known."""

CZII_WEIGHTS = {
    "apo-ferritin": 1.0,
    "beta-amylase": 0.0,
    "beta-galactosidase": 2.0,
    "ribosome": 1.0,
    "thyroglobulin": 2.0,
    "virus-like-particle": 1.0,
}
"""Weights of the species in the score of CZII's challenge (Kaggle, 2024)."""
