"""The sections about training: patches, networks, optimisers, the bi-level loop, devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Lt
from pydantic import ConfigDict

from robpicker_jax.config.field_types import _STRICT, Count, Fraction, NonNegative, Positive, PositiveInt, _help

META_NETWORKS: dict[str, tuple[str, ...]] = {
    "robpicker": ("correction", "reweighting"),
    "lc_only": ("correction",),
    "dr_only": ("reweighting",),
    "supervised": (),
}
"""The meta networks that each `train.variant` trains."""


@dataclass(frozen=True)
class PatchConfig:
    """Sampling and augmentation of training patches."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    size: Annotated[PositiveInt, _help("edge of the cubic patches, voxels")] = 64
    shift_vox: Annotated[Count, _help("largest random shift of a patch from its particle, per axis")] = 10
    background_share: Annotated[Fraction, _help("share of training patches at uniformly random positions")] = 0.1
    train_sampler: Annotated[
        str, _help("how training patches are drawn, by name: particles, class_balanced, uniform or an added one")
    ] = "particles"
    meta_sampler: Annotated[
        str, _help("how meta patches are drawn: as train_sampler, but half the shift and no background share")
    ] = "class_balanced"
    augment: Annotated[
        tuple[str, ...],
        _help(
            "augmentations, by name: rotate_180 (half-turns; keep missing wedge and handedness), flip (mirror images; "
            "keep the wedge), rotate_z90 (quarter turns about z; turn the wedge), rotate_any (any rotation, "
            "interpolated; turns the wedge), or added ones"
        ),
    ] = ("rotate_180",)
    input: Annotated[
        Literal["auto", "device", "host"],
        _help("tomograms on the devices, patches cut there, or in their files, cut by threads; auto: by what fits"),
    ] = "auto"
    labels: Annotated[
        Literal["auto", "stored", "drawn"],
        _help("label maps kept in memory, or each patch's drawn from coordinates; auto: what is less work and fits"),
    ] = "auto"
    threads: Annotated[
        PositiveInt | None, _help("threads that cut patches of host input; none: one a core, 8 at most")
    ] = None


@dataclass(frozen=True)
class ModelConfig:
    """Segmentation network (a U-Net unless another backbone is chosen) and the two meta networks."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    backbone: Annotated[str, _help("segmentation network, by name")] = "unet"
    backbone_options: Annotated[dict[str, Any], _help("further options of a backbone; unet has none")] = field(
        default_factory=dict, hash=False
    )
    preset: Annotated[
        Literal["paper", "deepfinder", "deepict", "custom"],
        _help("shape of the U-Net; fields left empty take the preset's value"),
    ] = "paper"
    widths: Annotated[tuple[PositiveInt, ...] | None, _help("channels of each level, top first, bottleneck last")] = (
        None
    )
    convs_per_block: Annotated[PositiveInt | None, _help("3x3x3 convolutions in each encoder block")] = None
    bottleneck_convs: Annotated[PositiveInt | None, _help("3x3x3 convolutions in the bottleneck")] = None
    decoder_convs: Annotated[PositiveInt | None, _help("3x3x3 convolutions in each decoder block")] = None
    batch_norm: Annotated[bool | None, _help("batch normalisation after each convolution")] = None
    dropout: Annotated[float | None, Ge(0), Lt(1), _help("dropout rate in the bottleneck")] = None
    correction: Annotated[
        Literal["tied", "ema", "head"],
        _help(
            "what the label correction proposes: the network's own prediction, that of its averaged parameters, or a "
            "head of its own on the network's features (the paper's)"
        ),
    ] = "tied"
    alpha_channels: Annotated[
        Literal["classes", "one"], _help("width of the label correction's alpha; one a class (the paper's), or one")
    ] = "one"
    alpha_bias: Annotated[float, _help("alpha's logit at the start; -3 trusts the given label at first")] = -3.0
    alpha_reach: Annotated[
        Positive, _help("largest change of alpha's logit from its start; bounded, so that alpha can always come back")
    ] = 8.0
    ema_decay: Annotated[float, Ge(0), Lt(1), _help("decay of the averaged parameters, for correction: ema")] = 0.99
    correction_hidden: Annotated[
        PositiveInt | None,
        _help("hidden width of the label correction; none: 16, with a head of its own the number of classes"),
    ] = None
    reweighting_hidden: Annotated[PositiveInt, _help("hidden width of the data reweighting network")] = 500
    reweighting_inputs: Annotated[
        Literal["loss", "classes", "composition"],
        _help(
            "what the reweighting network sees of a patch: its loss over the classes its label holds (the paper: its "
            "loss), the losses of these classes one by one, or those and which classes they are"
        ),
    ] = "loss"
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"], _help("type of the backbone's arithmetic; parameters and losses stay float32")
    ] = "float32"
    remat: Annotated[bool, _help("recompute block activations in the backward pass: less memory, more time")] = False


@dataclass(frozen=True)
class OptimizerConfig:
    """One optax optimiser with its learning-rate schedule."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: Annotated[Literal["sgd", "adam", "adamw", "rmsprop", "lion"], _help("optax optimiser")] = "sgd"
    learning_rate: Annotated[Positive, _help("peak learning rate")] = 1e-4
    momentum: Annotated[float, Ge(0), Lt(1), _help("momentum of sgd and rmsprop, b1 of the others")] = 0.9
    b2: Annotated[float, Ge(0), Lt(1), _help("second-moment decay of adam and adamw")] = 0.999
    eps_root: Annotated[NonNegative, _help("adam's term inside the root; positive for a finite hypergradient")] = 1e-12
    weight_decay: Annotated[
        NonNegative, _help("weight decay (added to the gradient for sgd, decoupled for adamw and lion)")
    ] = 0.0
    schedule: Annotated[Literal["constant", "cosine"], _help("learning-rate schedule over train.steps")] = "constant"
    warmup_steps: Annotated[Count, _help("linear warm-up")] = 0
    clip_norm: Annotated[NonNegative, _help("clip the gradient's global norm; 0: no clipping")] = 0.0


@dataclass(frozen=True)
class CorruptionConfig:
    """How clean meta labels are corrupted, at every step anew, to teach the label correction."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    missing: Annotated[Fraction, _help("share of particles erased")] = 0.4
    false_picks: Annotated[Fraction, _help("share of particles that get a false copy elsewhere in the patch")] = 0.2
    swap: Annotated[Fraction, _help("share of particles given a class drawn at random")] = 0.2
    shifted: Annotated[Fraction, _help("share of particles displaced")] = 0.5
    shift_vox: Annotated[NonNegative, _help("standard deviation of the displacement per axis, voxels")] = 1.0
    untouched: Annotated[Fraction, _help("share of patches left as they are")] = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """The bi-level training loop."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    variant: Annotated[
        Literal["robpicker", "lc_only", "dr_only", "supervised"], _help("both meta networks, one of them, or none")
    ] = "robpicker"
    steps: Annotated[PositiveInt, _help("training steps")] = 10_000
    batch_size: Annotated[PositiveInt, _help("training patches a step")] = 25
    meta_batch_size: Annotated[PositiveInt | None, _help("meta patches a step; none: batch_size")] = None
    seed: Annotated[Count, _help("seed of everything random in training")] = 0
    loss: Annotated[str, _help("loss of the segmentation, by name")] = "dice"
    loss_options: Annotated[dict[str, Any], _help("options of the loss, such as {smoothing_vox: 1.0} of dice")] = field(
        default_factory=dict, hash=False
    )
    inner: Annotated[OptimizerConfig, _help("optimiser of the segmentation network")] = field(
        default_factory=lambda: OptimizerConfig(weight_decay=5e-4)
    )
    correction: Annotated[OptimizerConfig, _help("optimiser of the label-correction network")] = field(
        default_factory=lambda: OptimizerConfig(name="adam", learning_rate=1e-3)
    )
    reweighting: Annotated[OptimizerConfig, _help("optimiser of the data-reweighting network")] = field(
        default_factory=lambda: OptimizerConfig(name="adam", learning_rate=1e-3)
    )
    hypergradient: Annotated[str, _help("hypergradient method, by name")] = "unrolled"
    hypergradient_options: Annotated[
        dict[str, Any], _help("options of the hypergradient method, such as {epsilon: 0.01} of finite_difference")
    ] = field(default_factory=dict, hash=False)
    inner_steps: Annotated[PositiveInt, _help("inner steps for each meta step")] = 1
    meta_warmup_steps: Annotated[
        Count, _help("first steps during which labels and weights are left alone; at most, with meta_warmup_until")
    ] = 0
    meta_warmup_until: Annotated[
        Literal["steps", "plateau"],
        _help("when the warm-up ends: after meta_warmup_steps, or at the first validation that is no better"),
    ] = "steps"
    meta_lambda: Annotated[
        NonNegative,
        _help("weight of the correction's own loss on corrupted meta labels (the paper's lamda); 0: none"),
    ] = 1.0
    meta_alpha: Annotated[
        NonNegative,
        _help("weight of the correction's own loss during the second half of the warm-up (the paper's meta alpha: 0)"),
    ] = 1.0
    corruption: Annotated[CorruptionConfig, _help("how meta labels are corrupted for that")] = field(
        default_factory=CorruptionConfig
    )
    weights: Annotated[
        Literal["none", "mean", "sum"],
        _help("weights of a batch as they are (the paper's), divided by their mean, or by their sum"),
    ] = "mean"
    hypergradient_scale: Annotated[
        Literal["exact", "over_rate", "normalised"],
        _help("the hypergradient as it is, divided by the inner learning rate, or by its own norm"),
    ] = "exact"
    stop_gradient_label: Annotated[bool, _help("no inner gradient through the corrected label")] = True
    stop_gradient_weight: Annotated[bool, _help("no inner gradient through the loss that sets the weight")] = True
    validate_every: Annotated[PositiveInt, _help("steps between validations")] = 500
    checkpoint_every: Annotated[PositiveInt, _help("steps between checkpoints")] = 500
    keep_checkpoints: Annotated[PositiveInt, _help("latest checkpoints kept beside the best")] = 2
    log_every: Annotated[PositiveInt, _help("steps between lines of metrics.jsonl")] = 10

    @property
    def meta_networks(self) -> tuple[str, ...]:
        """Names of the meta networks that this variant trains."""
        return META_NETWORKS[self.variant]

    @property
    def is_bilevel(self) -> bool:
        """Whether there is a meta level: false for supervised training alone."""
        return bool(self.meta_networks)

    @property
    def meta_batch(self) -> int:
        """Meta patches of a step: `meta_batch_size`, or `batch_size` where that is not set."""
        return self.meta_batch_size or self.batch_size


@dataclass(frozen=True)
class ParallelConfig:
    """Devices."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    form: Annotated[Literal["jit", "pmap"], _help("jit over a data mesh, or the pmap form")] = "jit"
    devices: Annotated[PositiveInt | None, _help("devices to use in each process; none: all")] = None
    micro_batches: Annotated[
        PositiveInt,
        _help("parts in which each device takes its share of a batch, to save memory; batch norm is then over a part"),
    ] = 1
    auto_micro_batches: Annotated[
        bool, _help("raise micro_batches where a step would not fit the memory; off: never")
    ] = True
    memory_limit_gib: Annotated[
        Positive | None, _help("memory of each device for tomograms and a step, GiB; none: what is free")
    ] = None
    distributed: Annotated[
        bool | None, _help("several processes; none: as SLURM, Open MPI, a TPU pod or the next three fields say")
    ] = None
    coordinator_address: Annotated[str | None, _help("HOST:PORT of process 0, where no launcher sets it")] = None
    num_processes: Annotated[PositiveInt | None, _help("number of processes, where no launcher sets it")] = None
    process_id: Annotated[Count | None, _help("number of this process, from 0, where no launcher sets it")] = None
