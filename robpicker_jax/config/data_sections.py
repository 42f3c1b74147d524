"""The sections about tomograms and their particles: a data set on disk, or a simulated one with faulty labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Le, Lt
from pydantic import ConfigDict

from robpicker_jax.config.field_types import STRICT, Count, Fraction, NonNegative, Positive, PositiveInt, about

MAX_SPECIES = 255
"""Label maps have 8 bits a voxel, and class 0 is background."""


@dataclass(frozen=True)
class Species:
    """One particle species; its class label is its position in `data.species`, counted from 1."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, about("name of the species, as reports and files show it")]
    radius_vox: Annotated[Positive, about("radius of its sphere label, voxels; or give radius_angstrom")]
    radius_angstrom: Annotated[
        Positive | None,
        about("the same in angstrom: read with the voxel size of data (or simulation), and kept as radius_vox"),
    ] = None
    phantom: Annotated[str | None, about("built-in analytic phantom to simulate it from")] = None
    density: Annotated[str | None, about("MRC density map to simulate it from (relative to the config file)")] = None
    mask: Annotated[str | None, about("MRC mask for shape labels; without one it is made from the density")] = None
    mask_level: Annotated[float, Gt(0), Lt(1), about("mask threshold, as a fraction of the maximum")] = 0.1
    molecular_weight_kda: Annotated[Positive | None, about("molecular weight in kDa (size groups in reports)")] = None
    copies: Annotated[Count, about("particles of this species placed in each simulated tomogram")] = 20
    min_cluster_vox: Annotated[
        PositiveInt | None, about("smallest cluster kept as a pick, voxels; none: as picking.min_cluster_vox has it")
    ] = None


@dataclass(frozen=True)
class SplitsConfig:
    """What each tomogram is for, where `data.dir` is a flat folder: names, or patterns such as 'TS_0*'."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    train: Annotated[tuple[str, ...], about("tomograms to train on; none: all others that have a list")] = ()
    meta: Annotated[tuple[str, ...], about("tomograms that are annotated with care")] = ()
    val: Annotated[tuple[str, ...], about("tomograms that choose the best model")] = ()
    test: Annotated[tuple[str, ...], about("tomograms to pick; none: all others that have no list")] = ()


@dataclass(frozen=True)
class CopickConfig:
    """Which runs, tomograms and picks of a copick project are taken, where `data.dir` is its `copick_config.json`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    train: Annotated[tuple[str, ...], about("runs to train on")] = ()
    meta: Annotated[tuple[str, ...], about("runs that are annotated with care")] = ()
    val: Annotated[tuple[str, ...], about("runs that choose the best model")] = ()
    test: Annotated[tuple[str, ...], about("runs to pick; none: all that the others leave")] = ()
    voxel_spacing_angstrom: Annotated[Positive | None, about("voxel spacing of the tomograms; none: the only one")] = (
        None
    )
    tomo_type: Annotated[str, about("type of the tomograms")] = "wbp"
    user: Annotated[str | None, about("whose picks are the annotations; none: the only ones")] = None
    session: Annotated[str | None, about("of which session; none: the only one")] = None
    prefer: Annotated[
        tuple[str, ...],
        about(
            "whose picks go before these, the first first, as USER or USER/SESSION: a run that one of them picked is read "
            "from those picks alone; such as [review/1], the lists that a review left"
        ),
    ] = ()


ALL_CLASSES = "*"
"""The name under which `data.lists` has lists of all classes beside those of single ones."""


@dataclass(frozen=True)
class DataConfig:
    """Where the tomograms are and how labels are made from their annotations."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    dir: Annotated[
        str | None,
        about(
            "folder with train/ meta/ [val/] test/, or a flat folder of tomograms (data.splits), or a copick_config.json; "
            "none: simulate one in the workdir"
        ),
    ] = None
    splits: Annotated[SplitsConfig, about("what each tomogram of a flat folder is for")] = field(
        default_factory=SplitsConfig
    )
    volumes: Annotated[
        str | None,
        about("which files of a flat folder are its tomograms: a pattern such as '*_10.00Apx.mrc'; none: all"),
    ] = None
    lists: Annotated[
        tuple[str, ...] | str | dict[str, str],
        about(
            "where the particle lists are, if not beside the tomograms: files and folders, or {CLASS: file or folder}; "
            "under '*', lists of all classes: a tomogram that has one is read from it alone"
        ),
    ] = field(default=(), hash=False)
    species: Annotated[tuple[Species, ...], about("the species, in the order of their class labels")] = ()
    voxel_size_angstrom: Annotated[Positive | None, about("voxel size; needed when MRC headers do not say")] = None
    train_labels: Annotated[
        Literal["sphere", "shape", "point", "map"],
        about("training label maps: spheres, rotated shapes, single voxels, or stored {name}_target.mrc"),
    ] = "sphere"
    meta_labels: Annotated[Literal["sphere", "shape", "point", "map"], about("label maps of meta, val and test")] = (
        "shape"
    )
    annotation_options: Annotated[
        dict[str, Any],
        about(
            "how lists are read: format, binning, unit, axes, first_voxel, tomograms …; or by format (docs/formats.md)"
        ),
    ] = field(default_factory=dict, hash=False)
    copick: Annotated[CopickConfig, about("what of a copick project is taken")] = field(default_factory=CopickConfig)
    name_pattern: Annotated[
        str | None,
        about("what of a tomogram's name counts where lists name it: a regular expression, such as 'TS_[0-9]+'"),
    ] = None
    outside: Annotated[
        Literal["refuse", "drop"], about("positions outside the volume: refuse the list, or leave them out and say so")
    ] = "refuse"
    normalise: Annotated[Literal["zscore", "none"], about("per-tomogram normalisation")] = "zscore"
    invert_contrast: Annotated[bool, about("multiply densities by -1 when reading")] = False
    errors: Annotated[
        Literal["refuse", "warn"],
        about("what the doctor calls an error, such as a species without particles: refuse to train, or warn"),
    ] = "refuse"


@dataclass(frozen=True)
class SimulationConfig:
    """Simulated tomograms: sample, tilt series, detector, reconstruction."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    shape_zyx: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], about("size of each tomogram, voxels")] = (
        64,
        128,
        128,
    )
    voxel_size_angstrom: Annotated[Positive, about("voxel size")] = 10.0
    train: Annotated[Count, about("number of training tomograms")] = 3
    meta: Annotated[Count, about("number of clean meta tomograms")] = 1
    val: Annotated[Count, about("number of validation tomograms")] = 1
    test: Annotated[Count, about("number of test tomograms")] = 1
    tilt_max_deg: Annotated[float, Gt(0), Le(90), about("tilts run from minus to plus this angle")] = 60.0
    tilt_step_deg: Annotated[Positive, about("angle between tilts")] = 3.0
    dose_per_tilt: Annotated[Positive, about("electrons per square angstrom and tilt (Poisson noise)")] = 3.0
    defocus_um: Annotated[NonNegative, about("underfocus in micrometres; 0 switches the CTF off")] = 3.0
    amplitude_contrast: Annotated[Fraction, about("amplitude contrast fraction of the CTF")] = 0.07
    voltage_kv: Annotated[Positive, about("acceleration voltage")] = 300.0
    spherical_aberration_mm: Annotated[NonNegative, about("spherical aberration")] = 2.7
    noise: Annotated[Literal["gaussian", "poisson", "none"], about("noise of the projections")] = "gaussian"
    snr: Annotated[Positive, about("signal-to-noise ratio (variance ratio) of each projection, Gaussian noise")] = 0.1
    ctf_correction: Annotated[Literal["none", "phase_flip"], about("CTF correction before reconstruction")] = (
        "phase_flip"
    )
    dark_particles: Annotated[bool, about("particles darker than their surroundings, as in raw tomograms")] = True
    min_gap_vox: Annotated[NonNegative, about("smallest gap between the bounding spheres of two particles")] = 1.0
    beads: Annotated[Count, about("gold beads in each tomogram: dense balls that are no particles")] = 0
    bead_diameter_angstrom: Annotated[Positive, about("diameter of the gold beads")] = 100.0
    seed: Annotated[Count, about("seed of the simulation")] = 0


@dataclass(frozen=True)
class LabelNoiseConfig:
    """Faults planted in annotations of a simulated data set: those of train, unless `splits` says otherwise."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    preset: Annotated[
        str,
        about(
            "structure of the errors: none, template_matching, spheres, non_exhaustive, look_alikes; rates stated here win"
        ),
    ] = "none"
    missing: Annotated[
        Fraction | dict[str, Fraction] | None,
        about("share of particles removed, one for all or by species; none: the preset's"),
    ] = field(default=None, hash=False)
    crowded_missing: Annotated[
        Fraction | dict[str, Fraction] | None,
        about("the same for particles with a near neighbour; none: the preset's, or as missing"),
    ] = field(default=None, hash=False)
    crowded_diameters: Annotated[
        NonNegative, about("a neighbour is near within this many diameters, centre to centre")
    ] = 1.25
    false_picks: Annotated[
        NonNegative | None, about("false picks added, as a share of the true count; none: the preset's")
    ] = None
    false_classes: Annotated[
        dict[str, NonNegative] | None,
        about("how often false picks get each species' class, by name; the others none; none: all alike"),
    ] = field(default=None, hash=False)
    false_on_contrast: Annotated[
        Fraction | None, about("share of false picks on gold beads (simulation.beads); none: the preset's")
    ] = None
    false_between: Annotated[
        Fraction | None, about("share of false picks on rims and in gaps of particles; none: the preset's")
    ] = None
    jitter_vox: Annotated[
        NonNegative | None,
        about("standard deviation of the position error per axis, voxels; none: the preset's"),
    ] = None
    jitter_z_vox: Annotated[NonNegative | None, about("the same along z; none: as the other axes, or the preset's")] = (
        None
    )
    swap: Annotated[
        Fraction | dict[str, Fraction] | None,
        about("share of particles given another class, one for all or by species; none: the preset's"),
    ] = field(default=None, hash=False)
    swap_to: Annotated[
        dict[str, str], about("the class that a species' swapped particles get, by name; others draw any class")
    ] = field(default_factory=dict, hash=False)
    splits: Annotated[
        tuple[Literal["train", "meta"], ...],
        about("whose annotations get the faults; with meta the clean set is as faulty as the others: a control"),
    ] = ("train",)
    seed: Annotated[Count, about("seed of the label noise")] = 0
