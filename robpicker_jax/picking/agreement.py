"""Whether a tomogram is like those that a model was trained on: voxel size, contrast, normalisation.

The one rule for every command that applies a model: a voxel size that differs by more than 2 % (or the model's own
tolerance) is refused, or the tomogram is resampled where the user asks for it; a contrast or a scale of densities that
differs draws a warning. Training that begins with a model says what differs, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import OpenedTomogram, agreed_voxel_size
from robpicker_jax.datasets.densities import DensityStatistics, density_statistics, disagreement, together
from robpicker_jax.models.trained_model import VOXEL_SIZE_TOLERANCE, ModelCard
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import VolumeReader
from robpicker_jax.volumes.rescaling import RescaledReader


def agrees(here: float | None, trained: float | None, tolerance: float = VOXEL_SIZE_TOLERANCE) -> bool:
    """Whether two voxel sizes are the same, as far as they are known."""
    return here is None or trained is None or abs(here - trained) <= tolerance * trained


def check_voxel_size(
    here: float | None, trained: float | None, where: Any, fix: str, tolerance: float = VOXEL_SIZE_TOLERANCE
) -> None:
    """Refuse a tomogram of other voxels than the training tomograms'.

    Raises:
        InputError: with both voxel sizes.
    """
    if not agrees(here, trained, tolerance):
        raise InputError(f"voxels of {here:.4g} Å, but the model was trained on {trained:.4g} Å", where=where, fix=fix)


def voxel_size_of(reader: VolumeReader, configured: float | None, trained: float | None) -> float | None:
    """Voxel size of a tomogram in Å, by its header, else as configured; None where neither says.

    A model's card says its own voxel size for files that do not tell theirs. That a header says another is then no
    contradiction within the data, but between data and model.

    Raises:
        InputError: the header contradicts a voxel size that the user gave.
    """
    header = reader.voxel_size_angstrom
    if header is not None and configured == trained:
        return header
    return agreed_voxel_size([reader], configured)


def at_trained_size(
    reader: VolumeReader,
    here: float | None,
    trained: float | None,
    *,
    rescale: bool,
    fix: str,
    tolerance: float = VOXEL_SIZE_TOLERANCE,
) -> VolumeReader:
    """The volume as the model can be applied to it: as it is, or resampled to the voxels of the training tomograms.

    Args:
        reader: the volume.
        here: its voxel size, Å.
        trained: that of the training tomograms, Å.
        rescale: whether the user wants it resampled.
        fix: the remedy to name.
        tolerance: largest relative difference that counts as none.

    Raises:
        InputError: another voxel size, and it is not to be resampled.
    """
    if here is None or trained is None or agrees(here, trained, tolerance):
        return reader
    if not rescale:
        check_voxel_size(here, trained, reader.path, fix, tolerance)
    return RescaledReader(reader, trained, here)


def unlike_card(
    card: ModelCard, data: DataConfig, voxel_size_angstrom: float | None, tomograms: Sequence[OpenedTomogram]
) -> str | None:
    """What of training tomograms is unlike those that a model was trained on, in words; None: nothing, as far as is known.

    Args:
        card: the model's.
        data: the section `data` by which the tomograms are read.
        voxel_size_angstrom: of the tomograms, Å.
        tomograms: the tomograms, normalised.
    """
    found = []
    if not agrees(voxel_size_angstrom, card.voxel_size_angstrom, card.voxel_size_tolerance):
        found.append(f"voxels of {voxel_size_angstrom:.4g} Å here, of {card.voxel_size_angstrom:.4g} Å there")
    if data.normalise != card.data.normalise:
        found.append(f"data.normalise is {data.normalise} here, {card.data.normalise} there")
    trained = card.densities
    here = None if trained is None else together([density_statistics(one, trained.block_vox) for one in tomograms])
    if here is not None and trained is not None and (unlike := disagreement(here, trained)) is not None:
        found.append(unlike)
    is_seen = here is not None and trained is not None and bool(here.skewness and trained.skewness)
    if data.invert_contrast != card.data.invert_contrast and not is_seen:
        # Raw tomograms may differ in contrast, so that this alone says nothing where the densities themselves agree.
        sides = [str(flag).lower() for flag in (data.invert_contrast, card.data.invert_contrast)]
        found.append(f"data.invert_contrast is {sides[0]} here, {sides[1]} there")
    return "; ".join(found) or None


def unlike_training(tomogram: OpenedTomogram | np.ndarray, trained: DensityStatistics | None) -> str | None:
    """What of a tomogram's densities is unlike the training tomograms', in words; None: nothing, or nothing is known."""
    if trained is None:
        return None
    return disagreement(density_statistics(tomogram, trained.block_vox), trained)
