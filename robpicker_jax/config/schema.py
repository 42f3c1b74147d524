"""The configuration as frozen dataclasses: one class a section, one line of help a field.

Names carry units. Arrays are (z, y, x); `*_zyx` fields follow that order.
Checks that involve several fields live in `validation.py`; reading and overriding in `loading.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]
PositiveInt = Annotated[int, Gt(0)]

_STRICT = ConfigDict(extra="forbid")

META_NETWORKS: dict[str, tuple[str, ...]] = {
    "robpicker": ("correction", "reweighting"),
    "lc_only": ("correction",),
    "dr_only": ("reweighting",),
    "supervised": (),
}
"""The meta networks that each `train.variant` trains."""


def _help(text: str) -> object:
    return Field(description=text)


MAX_SPECIES = 255
"""Label maps have 8 bits a voxel, and class 0 is background."""


@dataclass(frozen=True)
class Species:
    """One particle species; its class label is its position in `data.species`, counted from 1."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: Annotated[str, _help("name of the species, as reports and files show it")]
    radius_vox: Annotated[Positive, _help("radius of its sphere label, voxels")]
    phantom: Annotated[str | None, _help("built-in analytic phantom to simulate it from")] = None
    density: Annotated[str | None, _help("MRC density map to simulate it from (relative to the config file)")] = None
    mask: Annotated[str | None, _help("MRC mask for shape labels; without one it is made from the density")] = None
    mask_level: Annotated[float, Gt(0), Lt(1), _help("mask threshold, as a fraction of the maximum")] = 0.1
    molecular_weight_kda: Annotated[Positive | None, _help("molecular weight in kDa (size groups in reports)")] = None
    copies: Annotated[Count, _help("particles of this species placed in each simulated tomogram")] = 20
    min_cluster_vox: Annotated[
        PositiveInt | None, _help("smallest cluster kept as a pick; default picking.min_cluster_vox")
    ] = None


@dataclass(frozen=True)
class DataConfig:
    """Where the tomograms are and how labels are made from their annotations."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dir: Annotated[
        str | None, _help("data set folder with train/ meta/ [val/] test/; none: simulate one in the workdir")
    ] = None
    species: Annotated[tuple[Species, ...], _help("the species, in the order of their class labels")] = ()
    voxel_size_angstrom: Annotated[Positive | None, _help("voxel size; needed when MRC headers do not say")] = None
    train_labels: Annotated[
        Literal["sphere", "shape", "map"],
        _help("training label maps: spheres, rotated shapes, or stored {name}_target.mrc"),
    ] = "sphere"
    meta_labels: Annotated[Literal["sphere", "shape", "map"], _help("label maps of meta, val and test")] = "shape"
    annotation_options: Annotated[
        dict[str, Any],
        _help(
            "how lists are read: format, binning, unit, axes, first_voxel, tomograms …; or by format (docs/formats.md)"
        ),
    ] = field(default_factory=dict, hash=False)
    normalise: Annotated[Literal["zscore", "none"], _help("per-tomogram normalisation")] = "zscore"
    invert_contrast: Annotated[bool, _help("multiply densities by -1 when reading")] = False


@dataclass(frozen=True)
class SimulationConfig:
    """Simulated tomograms: sample, tilt series, detector, reconstruction."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    shape_zyx: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], _help("size of each tomogram, voxels")] = (
        64,
        128,
        128,
    )
    voxel_size_angstrom: Annotated[Positive, _help("voxel size")] = 10.0
    train: Annotated[Count, _help("number of training tomograms")] = 3
    meta: Annotated[Count, _help("number of clean meta tomograms")] = 1
    val: Annotated[Count, _help("number of validation tomograms")] = 1
    test: Annotated[Count, _help("number of test tomograms")] = 1
    tilt_max_deg: Annotated[float, Gt(0), Le(90), _help("tilts run from minus to plus this angle")] = 60.0
    tilt_step_deg: Annotated[Positive, _help("angle between tilts")] = 3.0
    dose_per_tilt: Annotated[Positive, _help("electrons per square angstrom and tilt (Poisson noise)")] = 3.0
    defocus_um: Annotated[NonNegative, _help("underfocus in micrometres; 0 switches the CTF off")] = 3.0
    amplitude_contrast: Annotated[Fraction, _help("amplitude contrast fraction of the CTF")] = 0.07
    voltage_kv: Annotated[Positive, _help("acceleration voltage")] = 300.0
    spherical_aberration_mm: Annotated[NonNegative, _help("spherical aberration")] = 2.7
    noise: Annotated[Literal["gaussian", "poisson", "none"], _help("noise of the projections")] = "gaussian"
    snr: Annotated[Positive, _help("signal-to-noise ratio (variance ratio) of each projection, Gaussian noise")] = 0.1
    ctf_correction: Annotated[Literal["none", "phase_flip"], _help("CTF correction before reconstruction")] = (
        "phase_flip"
    )
    dark_particles: Annotated[bool, _help("particles darker than their surroundings, as in raw tomograms")] = True
    min_gap_vox: Annotated[NonNegative, _help("smallest gap between the bounding spheres of two particles")] = 1.0
    beads: Annotated[Count, _help("gold beads in each tomogram: dense balls that are no particles")] = 0
    bead_diameter_angstrom: Annotated[Positive, _help("diameter of the gold beads")] = 100.0
    seed: Annotated[Count, _help("seed of the simulation")] = 0


@dataclass(frozen=True)
class LabelNoiseConfig:
    """Faults planted in annotations of a simulated data set: those of train, unless `splits` says otherwise."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    preset: Annotated[
        str,
        _help(
            "structure of the errors: none, template_matching, spheres, non_exhaustive, look_alikes; rates stated here win"
        ),
    ] = "none"
    missing: Annotated[
        Fraction | dict[str, Fraction] | None,
        _help("share of particles removed, one for all or by species; none: the preset's"),
    ] = field(default=None, hash=False)
    crowded_missing: Annotated[
        Fraction | dict[str, Fraction] | None,
        _help("the same for particles with a near neighbour; none: the preset's, or as missing"),
    ] = field(default=None, hash=False)
    crowded_diameters: Annotated[
        NonNegative, _help("a neighbour is near within this many diameters, centre to centre")
    ] = 1.25
    false_picks: Annotated[
        NonNegative | None, _help("false picks added, as a share of the true count; none: the preset's")
    ] = None
    false_classes: Annotated[
        dict[str, NonNegative] | None,
        _help("how often false picks get each species' class, by name; the others none; none: all alike"),
    ] = field(default=None, hash=False)
    false_on_contrast: Annotated[
        Fraction | None, _help("share of false picks on gold beads (simulation.beads); none: the preset's")
    ] = None
    false_between: Annotated[
        Fraction | None, _help("share of false picks on rims and in gaps of particles; none: the preset's")
    ] = None
    jitter_vox: Annotated[
        NonNegative | None,
        _help("standard deviation of the position error per axis, voxels; none: the preset's"),
    ] = None
    jitter_z_vox: Annotated[NonNegative | None, _help("the same along z; none: as the other axes, or the preset's")] = (
        None
    )
    swap: Annotated[
        Fraction | dict[str, Fraction] | None,
        _help("share of particles given another class, one for all or by species; none: the preset's"),
    ] = field(default=None, hash=False)
    swap_to: Annotated[
        dict[str, str], _help("the class that a species' swapped particles get, by name; others draw any class")
    ] = field(default_factory=dict, hash=False)
    splits: Annotated[
        tuple[Literal["train", "meta"], ...],
        _help("whose annotations get the faults; with meta the clean set is as faulty as the others: a control"),
    ] = ("train",)
    seed: Annotated[Count, _help("seed of the label noise")] = 0


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
    meta_sampler: Annotated[str, _help("how meta patches are drawn: as train_sampler, but half the shift")] = (
        "class_balanced"
    )
    meta_background_share: Annotated[
        Fraction, _help("share of meta patches at uniformly random positions: what is no particle is clean there too")
    ] = 0.0
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
    meta_share: Annotated[
        Fraction, _help("share of training patches that are drawn from the meta tomograms and keep their clean labels")
    ] = 0.0
    fine_tune_steps: Annotated[
        Count, _help("last steps, on meta patches alone, at a tenth of the learning rate; 0: none")
    ] = 0
    average_decay: Annotated[
        float,
        Ge(0),
        Lt(1),
        _help("picking uses an exponential average of the network's parameters with this decay; 0: the last ones"),
    ] = 0.0
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
    def uses_meta_batches(self) -> bool:
        """Whether steps need meta patches: for the meta level, or for fine-tuning."""
        return self.is_bilevel or self.fine_tune_steps > 0

    @property
    def main_steps(self) -> int:
        """Steps before fine-tuning."""
        return self.steps - self.fine_tune_steps

    @property
    def meta_batch(self) -> int:
        """Meta patches of a step: `meta_batch_size`, or `batch_size` where that is not set."""
        return self.meta_batch_size or self.batch_size


@dataclass(frozen=True)
class InferenceConfig:
    """From tomogram to class probabilities, by overlapping tiles."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    tile: Annotated[PositiveInt | None, _help("edge of the tiles, voxels; none: patches.size")] = None
    overlap_vox: Annotated[Count, _help("overlap of neighbouring tiles, voxels")] = 20
    batch_size: Annotated[PositiveInt, _help("tiles a forward pass on each device")] = 4
    blend: Annotated[
        Literal["average", "gaussian"],
        _help("weights of overlapping tiles: all the same, or a Gaussian about each tile's centre"),
    ] = "average"
    rotations: Annotated[
        Literal[1, 2, 4, 8],
        _help(
            "orientations averaged: 2 half-turn about the tilt axis y, 4 all half-turns, 8 quarter-turns about z too"
        ),
    ] = 1


@dataclass(frozen=True)
class PickingConfig:
    """From class map to picks: clusters of the voxels of each class, and their centres of gravity."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    clustering: Annotated[str, _help("how voxels of a class become clusters, by name: dbscan, components")] = "dbscan"
    clustering_options: Annotated[
        dict[str, Any],
        _help(
            "the clustering's options; dbscan: radius_vox 1, min_neighbours 5; components: connectivity 1 (faces) to "
            "3 (corners), min_probability 0"
        ),
    ] = field(default_factory=dict, hash=False)
    min_cluster_vox: Annotated[PositiveInt, _help("smallest cluster kept as a pick, voxels")] = 5
    min_score: Annotated[Fraction, _help("smallest score kept as a pick")] = 0.0
    edge_vox: Annotated[NonNegative, _help("smallest distance of a pick from the volume's edge, voxels")] = 0.0
    min_distance_vox: Annotated[NonNegative, _help("smallest distance between two picks of whatever class")] = 0.0
    max_picks: Annotated[PositiveInt | None, _help("picks kept in each tomogram, best scores first; none: all")] = None


@dataclass(frozen=True)
class EvaluationConfig:
    """How picks are matched with true particles."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    rule: Annotated[
        Literal["mask", "tolerance", "czii"],
        _help("inside a true particle's label; within a tolerance; CZII's half radius"),
    ] = "mask"
    tolerance_vox: Annotated[Positive, _help("tolerance rule: largest distance of a hit, voxels")] = 10.0
    one_to_one: Annotated[bool, _help("each true particle counts once; off: the paper's literal rule")] = True
    beta: Annotated[Positive | None, _help("beta of F-beta; none: 4 under the czii rule, else 1")] = None
    choose_by: Annotated[str, _help("validation score that chooses the best checkpoint, by name")] = "macro_f1"


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


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    data: DataConfig = field(default_factory=DataConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    label_noise: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    picking: PickingConfig = field(default_factory=PickingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
