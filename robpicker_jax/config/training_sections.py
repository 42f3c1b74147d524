"""The sections about training: patches, optimisers, the bi-level loop, devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict

from robpicker_jax.config.field_types import (
    STRICT,
    Count,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    StepsOrShare,
    about,
)

META_NETWORKS: dict[str, tuple[str, ...]] = {
    "robpicker": ("correction", "reweighting"),
    "lc_only": ("correction",),
    "dr_only": ("reweighting",),
    "modules": (),
    "supervised": (),
}
"""The meta networks that each `train.variant` trains."""


@dataclass(frozen=True)
class PatchConfig:
    """Sampling and augmentation of training patches."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    size: Annotated[
        PositiveInt, about("edge of the cubic patches, voxels; not given: about six of the largest radius")
    ] = 64
    shift_vox: Annotated[
        Count, about("largest random shift of a patch from its particle, per axis; not given: a fifth of the patch")
    ] = 10
    background_share: Annotated[Fraction, about("share of training patches at uniformly random positions")] = 0.1
    train_sampler: Annotated[
        str,
        about(
            "how training patches are drawn, by name: particles, class_balanced, bootstrap (the same without background), "
            "class_aware (by class_weights, a particle anywhere in the patch), uniform or an added one"
        ),
    ] = "particles"
    meta_sampler: Annotated[str, about("how meta patches are drawn: as train_sampler, but half the shift")] = (
        "class_balanced"
    )
    meta_background_share: Annotated[
        Fraction, about("share of meta patches at uniformly random positions: what is no particle is clean there too")
    ] = 0.0
    class_weights: Annotated[
        tuple[NonNegative, ...] | None, about("how often class_aware draws class 1, 2, …; none: all alike")
    ] = None
    augment: Annotated[
        tuple[str, ...],
        about(
            "augmentations, by name: rotate_180 (half-turns; keep missing wedge and handedness), rotate_tilt (the one about "
            "the tilt axis), flip (mirror images; keep the wedge), rotate_z90 (quarter turns about z; turn the wedge), "
            "rotate_any (any rotation, interpolated; turns the wedge), elastic, noise, salt_pepper, deepict (its rounds), "
            "standardise (each patch to mean 0, variance 1), or added ones"
        ),
    ] = ("rotate_180",)
    input: Annotated[
        Literal["auto", "device", "host"],
        about("tomograms on the devices, patches cut there, or in their files, cut by threads; auto: by what fits"),
    ] = "auto"
    labels: Annotated[
        Literal["auto", "stored", "drawn"],
        about("label maps kept in memory, or each patch's drawn from coordinates; auto: what is less work and fits"),
    ] = "auto"
    threads: Annotated[
        PositiveInt | None, about("threads that cut patches of host input; none: one a core, 8 at most")
    ] = None


@dataclass(frozen=True)
class OptimizerConfig:
    """One optax optimiser with its learning-rate schedule."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[Literal["sgd", "adam", "adamw", "rmsprop", "lion"], about("optax optimiser")] = "sgd"
    learning_rate: Annotated[Positive, about("peak learning rate")] = 1e-4
    momentum: Annotated[float, Ge(0), Lt(1), about("momentum of sgd and rmsprop, b1 of the others")] = 0.9
    b2: Annotated[float, Ge(0), Lt(1), about("second-moment decay of adam and adamw")] = 0.999
    eps_root: Annotated[NonNegative, about("adam's term inside the root; positive for a finite hypergradient")] = 1e-12
    weight_decay: Annotated[
        NonNegative, about("weight decay (added to the gradient for sgd, decoupled for adamw and lion)")
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "cosine_restarts"],
        about("learning-rate schedule; after its end a cosine stays at its last rate, or begins anew"),
    ] = "constant"
    schedule_steps: Annotated[PositiveInt | None, about("training steps that a cosine spans; none: train.steps")] = None
    final_share: Annotated[Fraction, about("share of the learning rate at which a cosine ends")] = 0.0
    warmup_steps: Annotated[Count, about("linear warm-up")] = 0
    clip_norm: Annotated[NonNegative, about("clip the gradient's global norm; 0: no clipping")] = 0.0


@dataclass(frozen=True)
class CorruptionConfig:
    """How clean meta labels are corrupted, at every step anew, to teach the label correction."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    missing: Annotated[
        Fraction | dict[str, Fraction], about("share of particles erased, one for all or by species")
    ] = field(default=0.4, hash=False)
    false_picks: Annotated[Fraction, about("probability of each of two false picks in a patch")] = 0.2
    false_on_contrast: Annotated[
        Fraction,
        about("share of the false picks that lie on the spot of highest contrast without a particle"),
    ] = 0.0
    false_classes: Annotated[
        dict[str, NonNegative] | None, about("how often false picks get each species' class, by name; none: all alike")
    ] = field(default=None, hash=False)
    swap: Annotated[
        Fraction | dict[str, Fraction], about("share of particles given another class, one for all or by species")
    ] = field(default=0.2, hash=False)
    swap_to: Annotated[
        dict[str, str], about("the class that a species' swapped particles get, by name; others draw any class")
    ] = field(default_factory=dict, hash=False)
    shifted: Annotated[Fraction, about("share of particles displaced")] = 0.5
    shift_vox: Annotated[NonNegative, about("standard deviation of the displacement per axis, voxels")] = 1.0
    shift_z_vox: Annotated[
        NonNegative | None, about("the same along z, where template matching errs twice as much; none: as shift_vox")
    ] = None
    untouched: Annotated[Fraction, about("share of patches left as they are")] = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """The bi-level training loop."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    variant: Annotated[
        Literal["robpicker", "lc_only", "dr_only", "modules", "supervised"],
        about("both meta networks, one of them, only what `modules` names, or none"),
    ] = "robpicker"
    modules: Annotated[
        tuple[Literal["class_weights", "voxel_weights", "mixup"], ...],
        about(
            "further meta modules, of the published code: weights of classes, weights of voxels by their loss, mixtures of "
            "patches by a network; the first two need loss: cross_entropy"
        ),
    ] = ()
    beside: Annotated[
        tuple[Literal["robpicker", "lc_only", "dr_only", "supervised"], ...],
        about("variants to run afterwards on the same data, in WORKDIR-VARIANT; the reports compare them"),
    ] = ()
    steps: Annotated[PositiveInt, about("training steps")] = 10_000
    batch_size: Annotated[PositiveInt, about("training patches a step")] = 25
    meta_batch_size: Annotated[PositiveInt | None, about("meta patches a step; none: batch_size")] = None
    meta_share: Annotated[
        Fraction, about("share of training patches that are drawn from the meta tomograms and keep their clean labels")
    ] = 0.0
    meta_held_out: Annotated[
        Literal["val", "none", "auto", "tomograms", "space"],
        about(
            "clean patches that no step gets, to measure the loss on: those of the val split, none, the last half of the "
            "meta tomograms, a slab of each, or (auto) tomograms where there are two"
        ),
    ] = "val"
    held_out_share: Annotated[
        float, Gt(0), Le(0.5), about("share of a meta tomogram's longest axis that meta_held_out: space keeps")
    ] = 0.25
    init_from: Annotated[
        str | None,
        about(
            "a run's folder, a model's file, or the name of a model that ships with the package, whose network training begins "
            "with; none: with random parameters. --init-from sets a short schedule too"
        ),
    ] = None
    frozen: Annotated[
        tuple[str, ...], about("layers of the network that are not trained, by name or pattern, such as encoder*")
    ] = ()
    fine_tune_steps: Annotated[
        StepsOrShare,
        about(
            "last steps, on meta patches alone, at a tenth of the learning rate; below 1: that share of all steps; 0: none"
        ),
    ] = 0
    average_decay: Annotated[
        float,
        Ge(0),
        Lt(1),
        about("picking uses an exponential average of the network's parameters with this decay; 0: the last ones"),
    ] = 0.0
    seed: Annotated[Count, about("seed of everything random in training")] = 0
    loss: Annotated[str, about("loss of the segmentation, by name")] = "batch_dice"
    loss_options: Annotated[dict[str, Any], about("options of the loss, such as {smoothing_vox: 1.0} of dice")] = field(
        default_factory=dict, hash=False
    )
    inner: Annotated[OptimizerConfig, about("optimiser of the segmentation network")] = field(
        default_factory=lambda: OptimizerConfig(weight_decay=5e-4)
    )
    correction: Annotated[OptimizerConfig, about("optimiser of the label-correction network")] = field(
        default_factory=lambda: OptimizerConfig(name="adam", learning_rate=1e-3)
    )
    reweighting: Annotated[OptimizerConfig, about("optimiser of the data-reweighting network")] = field(
        default_factory=lambda: OptimizerConfig(name="adam", learning_rate=1e-3)
    )
    module: Annotated[OptimizerConfig, about("optimiser of the further meta modules")] = field(
        default_factory=lambda: OptimizerConfig(name="adam", learning_rate=1e-3)
    )
    meta_batches: Annotated[
        Literal["shared", "own"],
        about(
            "one meta batch a step for all meta networks, or one of its own for each, which takes as many outer passes"
        ),
    ] = "shared"
    label_pooling: Annotated[
        Literal["none", "distribution", "channels"],
        about(
            "labels at the resolution of a network whose output is coarser than the image: not, pooled by maxima into "
            "distributions and then corrected, or corrected and pooled channel by channel (the published way)"
        ),
    ] = "none"
    mixup: Annotated[Fraction, about("probability that the patches of a batch are mixed with each other; 0: never")] = (
        0.0
    )
    mixup_strength: Annotated[Positive, about("a of the Beta(a, a) that the shares of a mixture are drawn from")] = 1.0
    mixup_meta: Annotated[bool, about("mix the patches of meta batches too, as the published code does")] = False
    hypergradient: Annotated[str, about("hypergradient method, by name")] = "unrolled"
    hypergradient_options: Annotated[
        dict[str, Any], about("options of the hypergradient method, such as {epsilon: 0.01} of finite_difference")
    ] = field(default_factory=dict, hash=False)
    inner_steps: Annotated[PositiveInt, about("inner steps for each meta step")] = 1
    meta_warmup_steps: Annotated[
        StepsOrShare,
        about(
            "first steps during which labels and weights are left alone; below 1: that share of all steps; at most, with "
            "meta_warmup_until"
        ),
    ] = 0
    meta_warmup_until: Annotated[
        Literal["steps", "plateau"],
        about(
            "when the warm-up ends: after meta_warmup_steps, or at the first validation that is no better than the one "
            "before, once that has found anything"
        ),
    ] = "steps"
    meta_lambda: Annotated[
        NonNegative,
        about("weight of the correction's own loss on corrupted meta labels (the paper's lamda); 0: none"),
    ] = 1.0
    meta_alpha: Annotated[
        NonNegative,
        about(
            "weight of the correction's own loss during the second half of the warm-up, with correction: network during "
            "all of it (the paper's meta alpha: 0)"
        ),
    ] = 1.0
    meta_class_entropy: Annotated[
        NonNegative,
        about(
            "weight at the start, in the own loss of a correction with a proposal of its own (not tied, not ema), of a "
            "cross-entropy in which every class counts alike; it falls to zero until the end by half a cosine. The larger, "
            "the sooner missing particles are recovered, and the more false ones are added"
        ),
    ] = 0.0
    corruption: Annotated[CorruptionConfig, about("how meta labels are corrupted for that")] = field(
        default_factory=CorruptionConfig
    )
    weights: Annotated[
        Literal["none", "mean", "sum"],
        about(
            "weights of a batch as they are (the paper's), divided by their mean, or by their sum (loss and gradient are then "
            "smaller by the batch size)"
        ),
    ] = "mean"
    hypergradient_scale: Annotated[
        Literal["exact", "over_rate", "normalised"],
        about("the hypergradient as it is, divided by the inner learning rate, or by its own norm"),
    ] = "exact"
    stop_gradient_label: Annotated[bool, about("no inner gradient through the corrected label")] = True
    stop_gradient_weight: Annotated[bool, about("no inner gradient through the loss that sets the weight")] = True
    trackers: Annotated[
        tuple[str, ...],
        about("where metrics go beside metrics.jsonl, by name: tensorboard, mlflow, wandb (extras), or added ones"),
    ] = ("tensorboard",)
    validate_every: Annotated[PositiveInt, about("steps between validations")] = 500
    checkpoint_every: Annotated[PositiveInt, about("steps between checkpoints")] = 500
    checkpoint_minutes: Annotated[
        Positive | None,
        about("minutes after which a checkpoint is written too, however few steps they were; none: never"),
    ] = None
    on_nan: Annotated[
        Literal["stop", "skip", "rollback"],
        about(
            "a step whose loss or update is not finite: end the run, go on from the state before it (which takes the "
            "memory of a second state), or go back to the newest checkpoint and leave the step out"
        ),
    ] = "stop"
    keep_checkpoints: Annotated[PositiveInt, about("latest checkpoints kept beside the best")] = 2
    log_every: Annotated[PositiveInt, about("steps between lines of metrics.jsonl")] = 10

    @property
    def meta_networks(self) -> tuple[str, ...]:
        """Names of the meta networks that are trained: the variant's, and the further modules unless it is supervised."""
        return META_NETWORKS[self.variant] + (() if self.variant == "supervised" else self.modules)

    def optimizer_of(self, name: str) -> OptimizerConfig:
        """The optimiser of "inner" or of a meta network."""
        return {"inner": self.inner, "correction": self.correction, "reweighting": self.reweighting}.get(
            name, self.module
        )

    @property
    def is_bilevel(self) -> bool:
        """Whether there is a meta level: false for supervised training alone."""
        return bool(self.meta_networks)

    @property
    def uses_meta_batches(self) -> bool:
        """Whether steps need meta patches: for the meta level, or for fine-tuning."""
        return self.is_bilevel or self.n_fine_tune_steps > 0

    @property
    def uses_meta_tomograms(self) -> bool:
        """Whether training reads the meta set: for meta batches, for some of its own patches, or to hold some out."""
        return self.uses_meta_batches or self.meta_share > 0 or self.meta_held_out not in ("val", "none")

    @property
    def n_fine_tune_steps(self) -> int:
        """Steps of the fine-tuning: `fine_tune_steps`, or that share of all steps."""
        return _number(self.fine_tune_steps, self.steps)

    @property
    def n_meta_warmup_steps(self) -> int:
        """Steps of the warm-up: `meta_warmup_steps`, or that share of all steps."""
        return _number(self.meta_warmup_steps, self.steps)

    @property
    def main_steps(self) -> int:
        """Steps before fine-tuning."""
        return self.steps - self.n_fine_tune_steps

    @property
    def meta_batch(self) -> int:
        """Patches of a meta batch: `meta_batch_size`, or `batch_size` where that is not set."""
        return self.meta_batch_size or self.batch_size

    @property
    def meta_rows(self) -> int:
        """Meta patches of a step: those of one batch, or of one for each meta network."""
        own = self.meta_batches == "own" and self.is_bilevel
        return self.meta_batch * (len(self.meta_networks) if own else 1)


def _number(steps_or_share: float, steps: int) -> int:
    """A number of steps as it is, a share of `steps` rounded."""
    return round(steps_or_share * steps) if steps_or_share < 1 else int(steps_or_share)


@dataclass(frozen=True)
class ParallelConfig:
    """Devices."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    form: Annotated[Literal["jit", "pmap"], about("jit over a data mesh, or the pmap form")] = "jit"
    devices: Annotated[PositiveInt | None, about("devices to use in each process; none: all")] = None
    micro_batches: Annotated[
        PositiveInt,
        about(
            "parts in which each device takes its share of a batch: less memory, batch norm and batch_dice over a part"
        ),
    ] = 1
    auto_micro_batches: Annotated[
        bool, about("raise micro_batches where a step would not fit the memory; off: never")
    ] = True
    memory_limit_gib: Annotated[
        Positive | None, about("memory of each device for tomograms and a step, GiB; none: what is free")
    ] = None
    distributed: Annotated[
        bool | None, about("several processes; none: as SLURM, Open MPI, a TPU pod or the next three fields say")
    ] = None
    coordinator_address: Annotated[str | None, about("HOST:PORT of process 0, where no launcher sets it")] = None
    num_processes: Annotated[PositiveInt | None, about("number of processes, where no launcher sets it")] = None
    process_id: Annotated[Count | None, about("number of this process, from 0, where no launcher sets it")] = None
    join_timeout_s: Annotated[PositiveInt, about("seconds to wait for the other processes at the start")] = 120
