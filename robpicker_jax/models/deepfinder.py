"""DeepFinder's network (Moebel et al. 2021, Nature Methods 18:1386), as its code has it: a U-Net without batch norm.

Two poolings, 32, 48 and 64 channels, four convolutions at the bottom, and on the way up each voxel repeated and a 2×2×2
convolution. With 13 classes it has 903,357 parameters. It is the U-Net of `preset: deepfinder`, whatever `model.preset` says.
"""

from __future__ import annotations

from dataclasses import replace

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.unet import UNet, build_unet


def build_deepfinder(model: ModelConfig, n_classes: int, *, device_axis: str | None = None) -> UNet:
    """DeepFinder's network for `n_classes` classes (background included), with what the configuration changes in it."""
    return build_unet(replace(model, preset="deepfinder"), n_classes, device_axis=device_axis)
