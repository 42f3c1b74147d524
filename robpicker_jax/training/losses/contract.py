"""What a loss of a segmentation takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float


class LossValues(NamedTuple):
    """The loss of a batch, in parts.

    Attributes:
        per_patch: the loss of each patch; their mean is the loss of the batch. Training weights these.
        per_class: what each class contributes to each patch's loss, in whatever scale is natural for the loss;
            a reweighting network may look at it. It is computed only where it is used.
    """

    per_patch: Float[Array, " n"]
    per_class: Float[Array, "n c"]


class Loss(Protocol):
    """The loss of predicted class probabilities against a label map, as a pure, differentiable function.

    Called as `loss(predicted, label, **options)`. Its keyword-only parameters are its options: `train.loss_options`
    is checked against their names and annotations.

    The loss of a patch may depend on the other patches of the batch, such as a Dice ratio whose sums run over the
    batch: `per_patch` then holds shares whose mean is the loss of the batch. With `parallel.micro_batches` above 1 the
    batch is one micro-batch. In the pmap form it is one device's share, unless the loss has a keyword-only parameter
    `device_axis`, through which it is told the mapped axis that it has to sum over.
    """

    def __call__(self, predicted: Array, label: Array, /, *args: Any, **options: Any) -> LossValues:
        """The loss of a batch of patches.

        Args:
            predicted: class probabilities (n, z, y, x, c), float32 or float64; class 0 is background. They sum to one
                over the classes, and may be exactly zero, so a loss that takes their logarithm must bound them away
                from it.
            label: label map of the same shape, one-hot or soft. A corrected label need not sum to one over the
                classes.
            args: not used; it lets losses with other parameters fit this type.
            options: the loss's keyword-only parameters.

        Returns:
            Losses of the same type as `predicted`. Gradients with respect to both arguments must be finite to the
            second order, also where a class is absent from a patch: the hypergradient differentiates them.
        """
        ...


BoundLoss = Callable[[Array, Array], LossValues]
"""A loss with its options set: `(predicted, label) -> LossValues`."""
