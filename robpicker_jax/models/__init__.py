"""The three networks, as pure `init` and `apply` functions; they know nothing of losses or files."""

from __future__ import annotations

from robpicker_jax.models.data_reweighting import DataReweighting, build_data_reweighting
from robpicker_jax.models.label_correction import LabelCorrection, build_label_correction
from robpicker_jax.models.presets import PRESETS, UNetShape, receptive_field, stride, unet_shape
from robpicker_jax.models.unet import UNet, build_unet, n_parameters

__all__ = [
    "PRESETS",
    "DataReweighting",
    "LabelCorrection",
    "UNet",
    "UNetShape",
    "build_data_reweighting",
    "build_label_correction",
    "build_unet",
    "n_parameters",
    "receptive_field",
    "stride",
    "unet_shape",
]
