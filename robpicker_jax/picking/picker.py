"""Pickers: what finds particles in a tomogram; chosen by `pick --picker NAME`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets.densities import DensityStatistics
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.inference import MemoryBound, Reader
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.template_picker import template_picker
from robpicker_jax.system.registry import look_up
from robpicker_jax.training.export import load_trained_model


@runtime_checkable
class Picker(Protocol):
    """Finds the particles of an opened tomogram.

    Positions are in voxels of the tomogram, labels count the picker's classes from 1, and a higher score is better.
    A picker is deterministic and may be used for any number of tomograms, one after the other.

    To add one: write a class with these members and a function that builds it (`PickerBuilder`), and put that function
    into `PICKERS` under a name. `pick --picker` then takes the name. This works from outside the package too.

    What a picker may be able to do beyond that has a protocol each: `Fingerprinted`, `Judging`, `Calibrated`,
    `Thresholded`, `Trained`.
    A picker whose class has the members of one is taken to be one; it need not inherit from it.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Name of class 1, 2, …."""
        ...

    @property
    def data(self) -> DataConfig:
        """How tomograms are opened for it: contrast, normalisation, voxel size where a file does not tell it."""
        ...

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Voxel size of the tomograms that it is made for, Å; None: any, or not known."""
        ...

    def tiles(self, shape_zyx: Sequence[int]) -> int:
        """Units of work that a tomogram of this shape takes, for the progress bar and the plan."""
        ...

    def memory(self, shape_zyx: Sequence[int], *, resident_bytes: int = 0) -> MemoryBound:
        """The most memory that picking a tomogram of this shape takes.

        Args:
            shape_zyx: the tomogram's size.
            resident_bytes: memory that its reader and mask take.
        """
        ...

    def pick(
        self, tomogram: Reader, on_tiles: Callable[[int], None] | None = None, *, mask: np.ndarray | None = None
    ) -> Particles:
        """The particles, by falling score.

        Args:
            tomogram: normalised densities, read by boxes.
            on_tiles: called with the number of units of work just finished; they add up to `tiles`.
            mask: bool (z, y, x); no particle outside it.
        """
        ...

    def with_min_scores(self, min_scores: Sequence[float]) -> Picker:
        """The same picker with a smallest score for class 1, 2, …."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A picker that can be told from one with other picks: only then does a batch that was stopped keep what it has."""

    @property
    def fingerprint(self) -> str:
        """A text that differs wherever picks may differ."""
        ...


@runtime_checkable
class Judging(Protocol):
    """A picker that also gives the candidates that it dropped: what `pick --rejected` needs."""

    def pick_judged(
        self, tomogram: Reader, on_tiles: Callable[[int], None] | None = None, *, mask: np.ndarray | None = None
    ) -> tuple[Particles, Particles]:
        """As `pick`; and the dropped candidates, with the name of the limit in their column `rejected_by`."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A picker that knows what its picks were worth on clean tomograms: `pick --precision` and `--thresholds` use it."""

    @property
    def calibration(self) -> Mapping[str, ClassCalibration] | None:
        """What picks were worth by score, by species; None: not known."""
        ...


@runtime_checkable
class Thresholded(Protocol):
    """A picker that knows the smallest scores that its picks are kept with; the records of a batch tell them."""

    @property
    def smallest_scores(self) -> Sequence[float | None]:
        """Smallest score of a pick of class 1, 2, …; None where it is not the same for all tomograms."""
        ...


@runtime_checkable
class Trained(Protocol):
    """A picker that knows the tomograms it was made from, so that those that are unlike them are told apart."""

    @property
    def voxel_size_tolerance(self) -> float:
        """Largest relative difference of a tomogram's voxel size from its own; `VOXEL_SIZE_TOLERANCE` for other pickers."""
        ...

    @property
    def densities(self) -> DensityStatistics | None:
        """Scale and skewness of the training tomograms' densities; None: not known."""
        ...


class PickerBuilder(Protocol):
    """Builds a picker from what the command line gives."""

    def __call__(self, source: Path, overrides: Sequence[str]) -> Picker:
        """Build the picker.

        Args:
            source: the value of `--workdir`: a folder or a file that the picker knows how to read.
            overrides: "dotted.key=value" strings from the command line.

        Raises:
            InputError: a source that it cannot use, or an override that it does not know.
        """
        ...


def model_picker(source: Path, overrides: Sequence[str] = ()) -> ModelPicker:
    """The picker `model`: the best model of a training run, or of a file `model.rpk`.

    Raises:
        InputError: no model there, or settings that it cannot be applied with.
    """
    return ModelPicker(load_trained_model(source).with_overrides(overrides))


PICKERS: dict[str, PickerBuilder] = {"model": model_picker, "template_matching": template_picker}
"""The pickers by name."""


def build_picker(name: str, source: Path, overrides: Sequence[str]) -> Picker:
    """The picker of that name.

    Raises:
        InputError: an unknown name (the error lists the known ones), or whatever building it raises.
    """
    return look_up(PICKERS, name, key="--picker")(source, overrides)
