"""What a report is made from: plain records that whoever ran the job fills in.

Every part may be missing; its section then says why. A class label is the index of its species in
`ReportData.species`, counted from 1; label 0 in a label map is the background.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import META_NETWORKS
from robpicker_jax.picking.expectation import Expected
from robpicker_jax.reporting.rejected import Rejected


class Absent(Exception):
    """A section cannot be drawn; the message is the reason its reader is given."""


class SpeciesInfo(NamedTuple):
    """A species as the report shows it."""

    name: str
    radius_vox: float
    molecular_weight_kda: float | None = None

    @property
    def size_text(self) -> str:
        """Its molecular weight where known, else its radius."""
        if self.molecular_weight_kda is not None:
            return f"{self.molecular_weight_kda:,.0f} kDa"
        return f"radius {self.radius_vox:g} voxels"


class ClassWeights(NamedTuple):
    """Weights that the data reweighting network gave to samples of one class.

    `size` orders the classes; `unit` names what it is.
    """

    name: str
    size: float
    weights: np.ndarray
    unit: str = "radius, voxels"


class Command(NamedTuple):
    """The command line that makes the list that is reviewed, as the viewer prints it with the present threshold.

    Attributes:
        before: what stands before the threshold.
        flag: the flag of the threshold: "--picking.min_scores", by class, or "--min-score" of an audit.
        after: what stands after it.
        language: "shell", or "python" for notebooks: `before.with_options("flag={…}")after`.
    """

    before: str = "robpicker pick --workdir RUN --out PICKS"
    flag: str = "--picking.min_scores"
    after: str = "TOMOGRAMS"
    language: str = "shell"


PICK = Command()


class AfterReview(NamedTuple):
    """What carries decisions out, around the name of the file that holds them.

    Attributes:
        before: what stands before the file.
        after: what stands after it.
    """

    before: str = "robpicker review --apply "
    after: str = " --picks PICKS --out CORRECTED"

    def with_files(self, *files: str) -> str:
        """The command for files of decisions; a command line takes several, a notebook's call gets one here."""
        return self.before + " --apply ".join(files) + self.after


APPLY = AfterReview()

UNCOUNTED = -2
"""Match of a pick that the scores leave out, such as one outside of the mask: neither correct nor false."""


def decisions_file(title: str, page: int = 1) -> str:
    """What the page of this title saves decisions as, by which browsers and shells need no quotes.

    Args:
        title: the page's heading.
        page: which of the pages of this title it is, from 1: their files lie in one folder.
    """
    stem = re.sub(r"[^\w.-]+", "_", title).strip("._") or "tomogram"
    return f"{stem}{'' if page == 1 else f'_{page}'}_decisions.json"


@dataclass(frozen=True, eq=False)
class TomogramView:
    """One test tomogram with what is in it and what was picked.

    Attributes:
        name: as files name it.
        density: float (z, y, x); may be binned, see `bin_zyx`.
        truth: true particles in unbinned voxels; None where there is no truth.
        picks: picked particles in unbinned voxels.
        matches: int (n picks,), index into `truth` of the particle a pick hit, -1 for none, `UNCOUNTED` for a pick that the
            scores leave out. None: the report matches them itself, see `outcomes.match_picks`.
        bin_zyx: density voxel i covers the unbinned voxels i·bin … i·bin + bin − 1 of its axis.
        voxel_size_angstrom: of the unbinned voxels; draws the scale bar.
        rejected: candidates that a limit dropped, in unbinned voxels; None: not known.
        volume_shape_zyx: unbinned size of the volume; None: that of the density. They differ where its last voxels fill no
            block of the binning.
    """

    name: str
    density: np.ndarray
    truth: Particles | None
    picks: Particles
    matches: np.ndarray | None = None
    bin_zyx: tuple[int, int, int] = (1, 1, 1)
    voxel_size_angstrom: float | None = None
    volume_shape_zyx: tuple[int, int, int] | None = None
    rejected: Rejected | None = None

    def __post_init__(self) -> None:
        if self.density.ndim != 3 or 0 in self.density.shape:
            raise ValueError(f"density must be (z, y, x) with voxels in it, not {self.density.shape}")
        if self.matches is not None:
            matches = np.asarray(self.matches, dtype=np.int64)
            limit = 0 if self.truth is None else len(self.truth)
            if matches.shape != (len(self.picks),) or (matches >= limit).any():
                raise ValueError(
                    f"matches must be one index below {limit} (or -1, or {UNCOUNTED}) for each of the picks"
                )
            object.__setattr__(self, "matches", matches)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Extent in unbinned voxels."""
        z, y, x = (int(n * b) for n, b in zip(self.density.shape, self.bin_zyx, strict=True))
        return z, y, x


@dataclass(frozen=True, eq=False)
class LabelExample:
    """The same 2D slice of a training patch before and after label correction.

    Attributes:
        name: where it lies, in one or two lines ("train_000", "z 31, y 40, x 17").
        image: float (y, x), density.
        noisy: int (y, x), class label the annotations give.
        corrected: int (y, x), most probable class of the corrected label; None where nothing corrects.
        true: int (y, x), class label of the clean truth; None where it is unknown.
        confidence: float (y, x) in [0, 1], the corrected label's largest probability: sets the opacity.
        probabilities: float (y, x, c) in [0, 1], the whole corrected label, class 0 first; drawn in place of
            `corrected` and `confidence`, since a correction below 0.5 is still one.
    """

    name: str
    image: np.ndarray
    noisy: np.ndarray
    corrected: np.ndarray | None
    true: np.ndarray | None = None
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.image)
        for name in ("image", "noisy", "corrected", "true", "confidence"):
            value = getattr(self, name)
            if value is not None and (np.ndim(value) != 2 or np.shape(value) != shape):
                raise ValueError(f"{name} must be a (y, x) slice of shape {shape}, not {np.shape(value)}")
        if self.probabilities is not None and np.shape(self.probabilities)[:-1] != shape:
            raise ValueError(f"probabilities must be {(*shape, 'classes')}, not {np.shape(self.probabilities)}")


@dataclass(frozen=True)
class Comparison:
    """Another run on the same data, by default the one without meta networks."""

    name: str = "supervised"
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    Attributes:
        title: heading of the page.
        config_yaml: the resolved configuration.
        versions: name → version of what ran.
        machine: hardware in one line.
        species: in the order of their class labels; tuples (name, radius) and configuration species will do.
        history: rows of metrics.jsonl, "kind" "train" or "validation".
        evaluation: of the test tomograms, `metrics.Evaluation.as_dict()`.
        tomograms: the test tomograms.
        label_examples: slices through training patches.
        weights: sample weights by class; tuples (name, size, weights) will do.
        comparison: another run on the same data.
        variant: "robpicker", "lc_only", "dr_only" or "supervised"; decides which sections must be empty.
        calibration: by class, (precision asked for, smallest score, recall there) of what the calibration tomograms show.
        expected: by class, what picks of at least a score are worth on tomograms without truth, thresholds falling.
        expected_of_all: the same at more scores than a figure needs, for the viewer's slider.
        validated_on: the tomograms by which the best model was chosen: "val", or "meta" where there is no val/, or "train"
            where there is neither.
        command: what picks, or audits, like this.
        after_review: what carries out the decisions that are made on the viewer's lists.
        page: which of several pages of this title it is.
        absent: section → reason that replaces the report's own; sections "evaluation", "thresholds", "tomograms",
            "training", "meta", "labels", "weights".
    """

    title: str
    config_yaml: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""
    species: Sequence[SpeciesInfo] = ()
    history: Sequence[Mapping[str, Any]] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    tomograms: Sequence[TomogramView] = ()
    label_examples: Sequence[LabelExample] = ()
    weights: Sequence[ClassWeights] = ()
    comparison: Comparison | None = None
    variant: str = "robpicker"
    calibration: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    expected: Mapping[str, Sequence[Expected]] = field(default_factory=dict)
    expected_of_all: Mapping[str, Sequence[Expected]] = field(default_factory=dict)
    validated_on: str = "val"
    command: Command = PICK
    after_review: AfterReview = APPLY
    page: int = 1
    absent: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "species", tuple(_species(self.species)))
        object.__setattr__(self, "weights", tuple(ClassWeights(*row) for row in self.weights))

    def sizes(self) -> dict[str, float]:
        """Size of each species by name, to order by: molecular weight where all are known, else radius."""
        weights = {s.name: s.molecular_weight_kda for s in self.species}
        known = {name: weight for name, weight in weights.items() if weight is not None}
        return known if len(known) == len(weights) else {s.name: s.radius_vox for s in self.species}

    def reason(self, section: str, default: str) -> str:
        """Why a section is empty: the caller's reason, else the variant's, else `default`."""
        if section in self.absent:
            return self.absent[section]
        corrects = "correction" in META_NETWORKS[self.variant]
        reweights = "reweighting" in META_NETWORKS[self.variant]
        if section in ("labels", "weights", "meta") and not (corrects or reweights):
            return f"{self.variant} variant: no meta networks"
        if section == "labels" and not corrects:
            return f"{self.variant} variant: no label correction network"
        if section == "weights" and not reweights:
            return f"{self.variant} variant: no data reweighting network"
        return default


def _species(values: Iterable[Any]) -> Iterable[SpeciesInfo]:
    for value in values:
        if isinstance(value, tuple):
            yield SpeciesInfo(*value)
        else:
            yield SpeciesInfo(value.name, value.radius_vox, value.molecular_weight_kda)
