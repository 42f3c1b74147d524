"""Tuning: which values of which fields are tried, in which order, and which trials go on. It trains nothing itself."""

from robpicker_jax.tuning.halving import rungs, survivors
from robpicker_jax.tuning.proposals import PROPOSALS, Done, Proposer
from robpicker_jax.tuning.space import Choice, Range, Space, as_overrides, parse_space

__all__ = [
    "PROPOSALS",
    "Choice",
    "Done",
    "Proposer",
    "Range",
    "Space",
    "as_overrides",
    "parse_space",
    "rungs",
    "survivors",
]
