"""A3: masks and label maps stored as IMOD's signed bytes, 0 as −128 and 1 as −127 or 127, mean what they meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import TomogramFiles, load_mask, load_target, open_tomogram, tomograms_from
from robpicker_jax.datasets.masks import masks_beside, read_masks
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.molecules.densities import species_mask
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import write_mrc

SHAPE = (12, 16, 20)
MASK = np.zeros(SHAPE, bool)
MASK[3:9, 4:12, 5:15] = True
STORED: dict[str, tuple[Any, int]] = {
    "0 and 1": (np.int8, 1),
    "-128 and -127": (np.int8, -127),
    "-128 and 127": (np.int8, 127),
    "0 and 255": (np.uint8, 255),
    "0 and -1": (np.int8, -1),
    "floats": (np.float32, 1),
}


def stored_mask(kind: str) -> np.ndarray:
    dtype, one = STORED[kind]
    zero = -128 if kind.startswith("-128") else 0
    return np.where(MASK, one, zero).astype(dtype)


def write_raw(path: Path, values: np.ndarray, voxel_size: float = 10.0) -> Path:
    """A volume in exactly this type; unsigned bytes as signed ones under statistics that say so."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(values.view(np.int8) if values.dtype == np.uint8 else values)
        mrc.voxel_size = voxel_size
        mrc.header.dmin, mrc.header.dmax = float(values.min()), float(values.max())
    return path


@pytest.fixture
def tomogram(tmp_path: Path) -> TomogramFiles:
    """A tomogram beside which a mask will lie."""
    write_mrc(tmp_path / "t.mrc", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), 10.0)
    return TomogramFiles("t", "test", tmp_path / "t.mrc", mask_path=tmp_path / "t_mask.mrc")


@pytest.mark.parametrize("kind", STORED)
def test_a3_signed_byte_masks_are_read_by_every_command(tomogram: TomogramFiles, kind: str) -> None:
    """`open_tomogram` serves train, segment, pick and audit; `masks_beside` and `read_masks` serve evaluate."""
    path = tomogram.mask_path
    assert path is not None
    write_raw(path, stored_mask(kind))
    with gathered_notes() as notes:
        with open_tomogram(tomogram, DataConfig(), mode="streamed") as opened:
            np.testing.assert_array_equal(opened.mask, MASK)
        (found,) = tomograms_from([tomogram.volume_path])
        np.testing.assert_array_equal(load_mask(found, SHAPE), MASK)
        np.testing.assert_array_equal(masks_beside(path.parent)["t"], MASK)
        truth = {"t": Particles([[6, 6, 6]], [1])}
        for where in (path, path.parent):
            np.testing.assert_array_equal(read_masks(where, truth)["t"], MASK)
    assert not notes


@pytest.mark.parametrize("kind", STORED)
def test_a3_a_species_mask_is_no_empty_one(tmp_path: Path, kind: str) -> None:
    write_raw(tmp_path / "m.mrc", stored_mask(kind) if kind != "0 and -1" else stored_mask("0 and 1"))
    shape = species_mask(Species("a", 3, mask=str(tmp_path / "m.mrc")), 10.0)
    assert shape.sum() == MASK.sum()


@given(st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 99))
def test_a3_label_maps_of_any_number_of_classes(
    tmp_path_factory: Any, n: int, shifted: bool, background: bool, seed: int
) -> None:
    """Shifted or not, with a background or, as crops can be, without: the labels come out."""
    labels = np.random.default_rng(seed).integers(0 if background else 1, n + 1, SHAPE).astype(np.int16)
    path = tmp_path_factory.mktemp("labels") / "t_target.mrc"
    write_raw(path, (labels - (128 if shifted else 0)).astype(np.int8))
    files = TomogramFiles("t", "train", path, target_path=path)
    np.testing.assert_array_equal(load_target(files, n, SHAPE), labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(SHAPE, np.int8), "excludes nothing: its values are 1 to 1"),
        (np.full(SHAPE, -127, np.int8), "excludes nothing: its values are 1 to 1"),
        (np.where(MASK, 2, 1).astype(np.int16), "excludes nothing: its values are 1 to 2"),
        (np.where(MASK, 1, 0) + np.eye(20, dtype=np.int16)[:16] * MASK, "more than two values, 0 to 2"),
        ((np.where(MASK, 1, 0) + np.eye(20, dtype=np.int16)[:16] * MASK - 128).astype(np.int8), "two values, 0 to 2"),
        (np.linspace(0, 1, MASK.size, dtype=np.float32).reshape(SHAPE), "more than two values, 0 to 1"),
    ],
)
def test_a3_masks_that_are_none_are_noted(tomogram: TomogramFiles, values: np.ndarray, message: str) -> None:
    assert tomogram.mask_path is not None
    write_raw(tomogram.mask_path, values.astype(np.int8) if values.dtype == np.int64 else values)
    with gathered_notes() as notes:
        load_mask(tomogram, SHAPE)
    assert len(notes) == 1
    assert message in notes[0]


def test_a3_the_doctor_warns_of_masks_that_are_none(tmp_path: Path) -> None:
    for folder in ("train", "meta"):
        (tmp_path / folder).mkdir()
        density = np.random.default_rng(len(folder)).normal(size=SHAPE).astype(np.float32)
        write_mrc(tmp_path / folder / "t.mrc", density, 10.0)
        write_annotations(tmp_path / folder / "t_objl.xml", Particles([[8, 8, 6]], [1]))
        write_raw(tmp_path / folder / "t_mask.mrc", stored_mask("-128 and -127"))
    assert "mask" not in diagnose(tmp_path).codes
    write_raw(tmp_path / "meta" / "t_mask.mrc", np.ones(SHAPE, np.int8))
    found = [finding for finding in diagnose(tmp_path).findings if finding.code == "mask"]
    assert [(finding.severity, finding.where) for finding in found] == [("warning", ("meta/t",))]
