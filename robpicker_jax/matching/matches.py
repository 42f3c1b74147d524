"""What matching gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.matching.templates import Template


@dataclass(frozen=True, eq=False)
class TemplateMatch:
    """What one template gave in one tomogram.

    Attributes:
        template: the template.
        scores: float32 (z, y, x).
        angles: int32 (z, y, x), numbers of rotations; −1 where none was settled.
        particles: the picks of this template alone.
        cutoff: smallest score that statistics let pass; −inf for none.
        mirrored: mean of the best scores of the mirrored template over that of the template; None where it was not searched
            for. A ratio above 1 says that the hand is wrong.
    """

    template: Template
    scores: np.ndarray
    angles: np.ndarray
    particles: Particles
    cutoff: float
    mirrored: float | None


@dataclass(frozen=True, eq=False)
class TomogramMatch:
    """What all templates gave in one tomogram: the picks with classes, and each template's part."""

    particles: Particles
    templates: tuple[TemplateMatch, ...]
