"""Which label correction a configuration names."""

from __future__ import annotations

from robpicker_jax.config import ModelConfig
from robpicker_jax.models.backbone import build_backbone
from robpicker_jax.models.correction_network import CorrectionNetwork
from robpicker_jax.models.label_correction import LabelCorrection
from robpicker_jax.models.published_corrections import LabelsOnlyCorrection, SeparateCorrection

AnyCorrection = LabelCorrection | LabelsOnlyCorrection | SeparateCorrection

_HIDDEN = 16  # with as few units as classes, all of them may be born dead


def build_label_correction(
    model: ModelConfig, n_classes: int, features: int, *, device_axis: str | None = None
) -> AnyCorrection:
    """The label-correction network of a configuration, for a backbone with `features` channels in its last map."""
    if model.correction == "labels":
        return LabelsOnlyCorrection(n_classes, model.correction_hidden or _HIDDEN, model.alpha_bias)
    if model.correction == "separate":
        backbone = build_backbone(model, n_classes, device_axis=device_axis)
        return SeparateCorrection(n_classes, backbone, model.correction_hidden or _HIDDEN, device_axis)
    network = None
    if model.correction == "network":
        network = CorrectionNetwork(
            n_classes,
            model.correction_widths,
            label_score=model.correction_label_score,
            prediction_score=model.correction_prediction_score,
            device_axis=device_axis,
        )
    return LabelCorrection(
        features=features,
        n_classes=n_classes,
        hidden=model.correction_hidden or (n_classes if model.correction == "head" else _HIDDEN),
        alpha_channels=n_classes if model.alpha_channels == "classes" else 1,
        alpha_bias=model.alpha_bias,
        alpha_reach=model.alpha_reach,
        own_head=model.correction == "head",
        network=network,
    )
