"""A configuration for data of which one knows where they lie: what can be found out is found out, the rest is proposed."""

from robpicker_jax.proposal.propose import Proposal, propose

__all__ = ["Proposal", "propose"]
