"""A person's decisions on a list of particles, and the list that they leave."""

from robpicker_jax.reviewing.decisions import Decisions, TomogramDecisions, read_decisions, write_decisions
from robpicker_jax.reviewing.edits import Edit, Item, Review, folded
from robpicker_jax.reviewing.items import ReviewList, fingerprint

__all__ = [
    "Decisions",
    "Edit",
    "Item",
    "Review",
    "ReviewList",
    "TomogramDecisions",
    "fingerprint",
    "folded",
    "read_decisions",
    "write_decisions",
]
