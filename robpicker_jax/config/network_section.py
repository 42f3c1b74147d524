"""The section about networks: the segmentation network and the two meta networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict

from robpicker_jax.config.field_types import STRICT, NonNegative, Positive, PositiveInt, about


@dataclass(frozen=True)
class ModelConfig:
    """Segmentation network (a U-Net unless another backbone is chosen) and the two meta networks."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    backbone: Annotated[str, about("segmentation network, by name")] = "unet"
    backbone_options: Annotated[dict[str, Any], about("further options of a backbone: see docs/backbones.md")] = field(
        default_factory=dict, hash=False
    )
    size: Annotated[Literal["small", "medium", "large"], about("size of the backbones residual_unet and swin_unet")] = (
        "medium"
    )
    preset: Annotated[
        Literal["paper", "deepfinder", "deepict", "custom"],
        about("shape of backbone: unet; fields left empty take the preset's value"),
    ] = "paper"
    widths: Annotated[tuple[PositiveInt, ...] | None, about("channels of each level, top first, bottleneck last")] = (
        None
    )
    convs_per_block: Annotated[PositiveInt | None, about("3x3x3 convolutions in each encoder block")] = None
    bottleneck_convs: Annotated[PositiveInt | None, about("3x3x3 convolutions in the bottleneck")] = None
    decoder_convs: Annotated[PositiveInt | None, about("3x3x3 convolutions in each decoder block")] = None
    batch_norm: Annotated[bool | None, about("batch normalisation after each convolution")] = None
    dropout: Annotated[float | None, Ge(0), Lt(1), about("dropout rate in the bottleneck")] = None
    correction: Annotated[
        Literal["tied", "ema", "head", "network", "labels", "separate"],
        about(
            "what the label correction proposes: the segmentation network's prediction, that of its averaged parameters, "
            "what a head of its own makes of that network's features (the paper's), or what a small network of its own "
            "makes of the density, the given label and the prediction; or the published code's: labels, which sees labels "
            "alone, and separate, with a backbone of its own"
        ),
    ] = "network"
    alpha_channels: Annotated[
        Literal["classes", "one"], about("width of the label correction's alpha; one a class (the paper's), or one")
    ] = "one"
    alpha_bias: Annotated[float, about("alpha's logit at the start; -3 trusts the given label at first")] = -3.0
    alpha_reach: Annotated[
        Positive, about("largest change of alpha's logit from its start; bounded, so that alpha can always come back")
    ] = 8.0
    ema_decay: Annotated[float, Ge(0), Lt(1), about("decay of the averaged parameters, for correction: ema")] = 0.99
    correction_hidden: Annotated[
        PositiveInt | None,
        about("hidden width of the label correction; none: 16, with a head of its own the number of classes"),
    ] = None
    correction_widths: Annotated[
        tuple[PositiveInt, ...],
        about("channels of each level of a correction network of its own, for correction: network"),
    ] = (8, 16, 24)
    correction_label_score: Annotated[
        NonNegative, about("score that the given label starts with over other classes, for correction: network")
    ] = 4.0
    correction_prediction_score: Annotated[
        NonNegative,
        about(
            "score that a certain prediction starts with; near the label's, it overrules the label with less training"
        ),
    ] = 0.0
    class_weight_form: Annotated[
        Literal["log", "raw"],
        about("class weights as a meta module: their logarithms are learned, or (published) they themselves"),
    ] = "log"
    reweighting_hidden: Annotated[PositiveInt, about("hidden width of the data reweighting network")] = 500
    weight_reach: Annotated[
        Annotated[float, Gt(1)] | None,
        about("weights lie between 1/r and r before they are normalised; none: the paper's sigmoid, from 0 to 1"),
    ] = 2.0
    reweighting_inputs: Annotated[
        Literal["loss", "classes", "composition", "presence"],
        about(
            "what the reweighting network sees of a patch: its loss over the classes its label holds (the paper: its "
            "loss), the losses of these classes one by one, those and which classes they are, or only which classes they are"
        ),
    ] = "composition"
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"], about("type of the backbone's arithmetic; parameters and losses stay float32")
    ] = "float32"
    remat: Annotated[bool, about("recompute block activations in the backward pass: less memory, more time")] = False
