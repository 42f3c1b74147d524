"""Losses of a segmentation by name; `train.loss` chooses one, `train.loss_options` sets its options.

A new loss is a function as `Loss` describes it, and one line in `LOSSES`: here, or from outside of the package by
`LOSSES["mine"] = my_loss` before the configuration is used.
"""

from __future__ import annotations

import functools

from robpicker_jax.config import TrainConfig
from robpicker_jax.system.registry import checked_options, look_up, option_parameters
from robpicker_jax.training.losses.contract import BoundLoss, Loss, LossValues
from robpicker_jax.training.losses.dice import class_sums, dice
from robpicker_jax.training.losses.overlap import (
    batch_dice,
    dice_cross_entropy,
    generalised_dice,
    present_dice,
    tversky,
)
from robpicker_jax.training.losses.voxelwise import cross_entropy, focal, nnpu, weighted_cross_entropy

__all__ = ["LOSSES", "BoundLoss", "Loss", "LossValues", "build_loss", "class_sums", "dice", "weighted_cross_entropy"]

_DEVICE_AXIS = "device_axis"

LOSSES: dict[str, Loss] = {
    "dice": dice,
    "present_dice": present_dice,
    "batch_dice": batch_dice,
    "generalised_dice": generalised_dice,
    "tversky": tversky,
    "dice_cross_entropy": dice_cross_entropy,
    "cross_entropy": cross_entropy,
    "focal": focal,
    "nnpu": nnpu,
}
"""Name → loss."""


def build_loss(train: TrainConfig, *, device_axis: str | None = None) -> BoundLoss:
    """The loss that a configuration names, with its options set.

    With `device_axis`, a loss that takes this argument sums over the devices along it.

    Raises:
        InputError: an unknown loss or option, or an option of another type.
    """
    loss = look_up(LOSSES, train.loss, key="train.loss")
    options = checked_options(loss, train.loss_options, key="train.loss_options", reserved=(_DEVICE_AXIS,))
    if device_axis is not None and _DEVICE_AXIS in option_parameters(loss):
        options[_DEVICE_AXIS] = device_axis
    return functools.partial(loss, **options)
