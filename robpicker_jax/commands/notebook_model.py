"""The trained model of `import robpicker_jax as rp`: volumes or arrays in, picks and segmentations out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from robpicker_jax.annotations import Particles
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, agreed_voxel_size, open_tomogram, tomograms_from
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.model_file import save_model
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking.agreement import check_voxel_size, unlike_training
from robpicker_jax.picking.inference import Reader, Segmentation
from robpicker_jax.picking.known_calibration import known_calibration
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.picker import model_picker
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.progress import progress as progress_bar
from robpicker_jax.volumes import open_volume
from robpicker_jax.volumes.normalisation import normalise

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model, ready to pick; `load_model` and `train` give one.

    Attributes:
        picker: the picker behind it.
        source: where it was loaded from: a run's folder, a file, or the name of a model that ships; None: not known.
    """

    picker: ModelPicker
    source: Path | None = None

    @property
    def card(self) -> ModelCard:
        """What the model is: network, species, voxel size, contrast, training step and score, settings of picking."""
        return self.picker.model.card

    @property
    def species(self) -> list[str]:
        """Names of the species, that of class label 1 first."""
        return self.card.class_names

    @property
    def calibration(self) -> Mapping[str, ClassCalibration]:
        """What its picks were worth by their score, by species: by its card, else by the run that it was loaded from.

        Empty where neither tells.
        """
        return known_calibration(self.source, self.card)

    def pick(
        self,
        tomogram: ArrayLike | PathLike,
        *,
        voxel_size: float | None = None,
        mask: ArrayLike | None = None,
        progress: bool = False,
    ) -> Particles:
        """Pick the particles of a tomogram.

        The tomogram is normalised here, with the contrast that the model was trained on; give densities as they are.
        A contrast that seems to be inverted, or another scale of the densities, draws a warning.

        Args:
            tomogram: a volume file, or an array (z, y, x).
            voxel_size: edge of a voxel in Å. None: as the file's header says; for an array, or a header
                that does not say, the model's own voxel size is assumed.
            mask: bool (z, y, x), where the sample is: normalisation and picks keep to it. A file's own mask,
                `{name}_mask.mrc` beside it, serves where it is None.
            progress: show a progress bar.

        Returns:
            The picks by falling score: positions x, y, z in voxels, the centre of voxel 0 at 0.0; class labels and
            names, scores in [0, 1], cluster sizes. `.to_dataframe()` makes a table of them.

        Raises:
            InputError: a file that cannot be read, an array that is no tomogram, a voxel size more than 2 % away from
                the model's, NaN or infinite voxels.
        """
        with (
            self._like_training(tomogram, voxel_size, mask) as (reader, sample),
            self._bar("picking", reader, progress) as on,
        ):
            return self.picker.pick(reader, on, mask=sample)

    def segment(
        self,
        tomogram: ArrayLike | PathLike,
        *,
        voxel_size: float | None = None,
        mask: ArrayLike | None = None,
        scores: bool = False,
        progress: bool = False,
    ) -> Segmentation:
        """The class map of a tomogram.

        Args:
            tomogram, voxel_size, mask, progress: as in `pick`; a mask serves the normalisation alone.
            scores: also keep the probabilities of all classes (4 bytes for each voxel and class).

        Returns:
            `classes` (z, y, x) uint8, 0 background; `probability` (z, y, x) float16 of that class; `scores`
            (z, y, x, classes) float32 or None.

        Raises:
            InputError: as `pick`.
        """
        with (
            self._like_training(tomogram, voxel_size, mask) as (reader, _),
            self._bar("segmenting", reader, progress) as on,
        ):
            return self.picker.segment(reader, on, keep_scores=scores)

    def with_options(self, *overrides: str) -> Model:
        """The model, applied in another way.

        Args:
            overrides: "dotted.key=value" strings of the sections data, inference, picking and parallel, such as
                "picking.min_score=0.5".

        Raises:
            InputError: an unknown key, an impossible value, or a field of the network itself.
        """
        return replace(self, picker=replace(self.picker, model=self.picker.model.with_overrides(overrides)))

    def save(self, path: PathLike) -> None:
        """Write the model as one file, which `load_model` reads.

        Raises:
            InputError: the file cannot be written.
        """
        save_model(path, self.picker.model)

    def __repr__(self) -> str:
        card = self.card
        size = "" if card.voxel_size_angstrom is None else f", {card.voxel_size_angstrom:g} Å voxels"
        score = "" if card.score is None else f", {card.score_name} {card.score:.3f}"
        return f"Model({', '.join(self.species)}{size}; step {card.step}{score})"

    @contextmanager
    def _like_training(
        self, tomogram: ArrayLike | PathLike, voxel_size: float | None, mask: ArrayLike | None
    ) -> Iterator[tuple[Reader | np.ndarray, np.ndarray | None]]:
        """As `_opened`; densities that are unlike the training tomograms' draw a warning."""
        with self._opened(tomogram, voxel_size, mask) as (densities, sample):
            unlike = unlike_training(densities, self.picker.densities)
            if unlike is not None:
                warnings.warn(unlike, stacklevel=5)
            yield densities, sample

    @contextmanager
    def _opened(
        self, tomogram: ArrayLike | PathLike, voxel_size: float | None, mask: ArrayLike | None
    ) -> Iterator[tuple[OpenedTomogram | np.ndarray, np.ndarray | None]]:
        """Normalised densities, in memory or behind a reader, and the mask of the sample."""
        if voxel_size is not None and not voxel_size > 0:
            raise InputError(f"must be positive, got {voxel_size:g}", where="voxel_size")
        if not isinstance(tomogram, str | os.PathLike):
            self._check_voxel_size(voxel_size, "voxel_size")
            yield self._normalised(tomogram, mask, "the tomogram")
            return
        files = _one_tomogram(tomogram)
        with open_volume(files.volume_path) as volume:
            self._check_voxel_size(agreed_voxel_size([volume], voxel_size), str(tomogram))
            if mask is None:
                data = replace(self.card.data, voxel_size_angstrom=voxel_size)
                with open_tomogram(files, data, mode="streamed", reader=volume) as opened:
                    yield opened, opened.mask
                return
            density = volume.read()
        yield self._normalised(density, mask, str(tomogram))

    def _normalised(
        self, density: ArrayLike, mask: ArrayLike | None, where: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        array = np.asarray(density)
        if array.ndim != 3 or array.dtype.kind not in "fiub" or not array.size:
            raise InputError(
                f"needs an array (z, y, x) of numbers, got shape {array.shape} of {array.dtype}", where=where
            )
        sample = None if mask is None else np.asarray(mask, dtype=bool)
        if sample is not None and sample.shape != array.shape:
            raise InputError(f"mask of {sample.shape} voxels (z y x), tomogram of {array.shape}", where=where)
        values = np.array(array, np.float32, order="C")
        if self.card.data.invert_contrast:
            np.negative(values, out=values)
        with located(where):
            return normalise(values, self.card.data.normalise, mask=sample, copy=False), sample

    def _check_voxel_size(self, size: float | None, where: str) -> None:
        fix = "resample the tomogram, or correct the voxel size"
        check_voxel_size(size, self.card.voxel_size_angstrom, where, fix, self.card.voxel_size_tolerance)

    @contextmanager
    def _bar(self, title: str, reader: Reader | np.ndarray, shown: bool) -> Iterator[Callable[[int], None] | None]:
        if not shown:
            yield None
            return
        shape = reader.shape if isinstance(reader, np.ndarray) else reader.shape_zyx
        with progress_bar(title, self.picker.tiles(shape)) as bar:
            yield bar.advance


def load_model(path: PathLike, overrides: Sequence[str] = ()) -> Model:
    """Load a trained model.

    Args:
        path: folder of a training run, a file `model.rpk`, or the name of a model that ships with the package.
        overrides: "dotted.key=value" strings, see `Model.with_options`.

    Raises:
        InputError: no model there, or a damaged one.
    """
    enable_persistent_cache()
    return Model(model_picker(Path(path), overrides), Path(path))


def _one_tomogram(path: PathLike) -> TomogramFiles:
    found = tomograms_from([Path(path)], annotations=False)
    if len(found) != 1:
        raise InputError(f"a folder of {len(found)} tomograms", where=path, fix="give one of its files at a time")
    return found[0]
