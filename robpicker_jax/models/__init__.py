"""The segmentation network (backbone) and the two meta networks, as pure `init` and `apply` functions.

They do not depend on losses or files.
"""

from __future__ import annotations

from robpicker_jax.models.backbone import (
    BACKBONES,
    Backbone,
    BackboneBuilder,
    DeeplySupervised,
    build_backbone,
    check_edge,
)
from robpicker_jax.models.correction_builder import build_label_correction
from robpicker_jax.models.data_reweighting import DataReweighting, build_data_reweighting
from robpicker_jax.models.label_correction import LabelCorrection
from robpicker_jax.models.meta_modules import MODULES, ClassWeights, MixupNetwork, VoxelWeights
from robpicker_jax.models.presets import PRESETS, UNetShape, convolutions, unet_shape
from robpicker_jax.models.scores import FullResolution, Head, class_probabilities
from robpicker_jax.models.unet import UNet, build_unet, n_parameters
from robpicker_jax.models.work import Convolution, Work, work_of

__all__ = [
    "BACKBONES",
    "MODULES",
    "PRESETS",
    "Backbone",
    "BackboneBuilder",
    "ClassWeights",
    "Convolution",
    "DataReweighting",
    "DeeplySupervised",
    "FullResolution",
    "Head",
    "LabelCorrection",
    "MixupNetwork",
    "UNet",
    "UNetShape",
    "VoxelWeights",
    "Work",
    "build_backbone",
    "build_data_reweighting",
    "build_label_correction",
    "build_unet",
    "check_edge",
    "class_probabilities",
    "convolutions",
    "n_parameters",
    "unet_shape",
    "work_of",
]
