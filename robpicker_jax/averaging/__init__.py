"""Subtomogram averaging: weighted Fourier averages in two independent halves, alignment, FSC, masks."""

from robpicker_jax.averaging.masks import ParticleMask, make_mask
from robpicker_jax.averaging.particle_set import ParticleSet, Source, gather
from robpicker_jax.averaging.refinement import Iteration, iterate, start
from robpicker_jax.averaging.resolution import ShellCorrelation, masked_correlation, shell_correlation
from robpicker_jax.averaging.results import AverageResult, finish
from robpicker_jax.averaging.settings import AveragingSettings
from robpicker_jax.averaging.weights import Transfer

__all__ = [
    "AverageResult",
    "AveragingSettings",
    "Iteration",
    "ParticleMask",
    "ParticleSet",
    "ShellCorrelation",
    "Source",
    "Transfer",
    "finish",
    "gather",
    "iterate",
    "make_mask",
    "masked_correlation",
    "shell_correlation",
    "start",
]
