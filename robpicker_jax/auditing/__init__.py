"""Which of a user's own annotations a trained network doubts, and what it would do about them."""

from robpicker_jax.auditing.evidence import Evidence
from robpicker_jax.auditing.scoring import KINDS, Judgement, judge, unannotated

__all__ = ["KINDS", "Evidence", "Judgement", "judge", "unannotated"]
