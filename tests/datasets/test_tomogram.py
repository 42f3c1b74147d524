"""Opening tomograms: every mode gives the densities that an independent reading and `normalise` give, bit for bit."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, open_tomogram, stream_tomograms
from robpicker_jax.datasets.tomogram import Mode
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, write_mrc
from robpicker_jax.volumes.normalisation import normalise

SHAPE = (21, 18, 25)
MODES: tuple[Mode, ...] = ("memory", "mapped", "streamed")
BOXES = ((slice(0, 21), slice(0, 18), slice(0, 25)), (slice(3, 11), slice(10, 18), slice(2, 9)))


def stored(folder: Path, kind: str) -> tuple[Path, np.ndarray]:
    """A volume whose voxels are stored in one of many ways, and its voxels."""
    values = np.random.default_rng(6).normal(10, 50, SHAPE)
    name, _, dtype = kind.partition(" ")
    path = folder / f"tomo{name}"
    voxels = values.astype(dtype)
    if name == ".tif":
        tifffile.imwrite(path, voxels)
        return path, voxels
    with mrcfile.new(path, compression="gzip" if name.endswith(".gz") else None) as file:
        file.set_data(voxels)
        file.set_volume()
        file.voxel_size = 9.5
    return path, voxels


@pytest.mark.parametrize(
    "kind",
    [".mrc float32", ".mrc >f4", ".mrc int8", ".mrc >i2", ".mrc uint16", ".mrc float16", ".mrc.gz int16",
     ".tif uint8", ".tif float64", ".tif >u4"],
)  # fmt: skip
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # negative numbers as unsigned ones
def test_all_modes_agree_bit_for_bit(tmp_path: Path, kind: str, masked: bool) -> None:
    path, voxels = stored(tmp_path, kind)
    mask = np.random.default_rng(7).random(SHAPE) < 0.7 if masked else None
    if mask is not None:
        write_mrc(tmp_path / "mask.mrc", mask)
    files = TomogramFiles("tomo", "test", path, mask_path=tmp_path / "mask.mrc" if masked else None)
    for data in (DataConfig(), DataConfig(invert_contrast=True), DataConfig(normalise="none")):
        raw = voxels.astype(np.float32)
        expected = normalise(-raw if data.invert_contrast else raw, data.normalise, mask=mask)
        scalings = []
        for mode in MODES:
            with open_tomogram(files, data, mode=mode) as tomogram:
                check_densities(tomogram, expected)
                if masked:
                    np.testing.assert_array_equal(tomogram.mask, mask)
                else:
                    assert tomogram.mask is None
                assert (tomogram.density is None) == (mode != "memory")
                scalings.append(tomogram.scaling)
            with open_tomogram(files, data, mode=mode, scaling=scalings[0]) as again:
                check_densities(again, expected)
        assert scalings[0] == scalings[1] == scalings[2]


def check_densities(tomogram: OpenedTomogram, expected: np.ndarray) -> None:
    assert tomogram.shape_zyx == tomogram.shape == expected.shape
    for box in BOXES:
        for read in (tomogram.read(box), tomogram[box]):
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, expected[box])
        tomogram.release()
    np.testing.assert_array_equal(np.asarray(tomogram), expected)


def test_densities_are_read_into_a_given_array(tmp_path: Path) -> None:
    path, voxels = stored(tmp_path, ".mrc int16")
    stack = np.full((2, 30, 30, 30), 7, np.float32)
    into = stack[1, :21, :18, :25]
    tomogram = open_tomogram(TomogramFiles("tomo", "test", path), DataConfig(), into=into)
    assert np.shares_memory(tomogram.density, stack)
    np.testing.assert_array_equal(into, normalise(voxels))
    assert (stack[0] == 7).all()
    assert (stack[1, 21:] == 7).all()
    copy = np.array(tomogram, copy=True)
    copy[:] = 0
    np.testing.assert_array_equal(into, normalise(voxels))


def test_particles_are_read_where_they_are_needed(tmp_path: Path) -> None:
    path, _ = stored(tmp_path, ".mrc float32")
    write_annotations(tmp_path / "tomo.xml", Particles([[1.0, 2, 3]], [1]))
    files = TomogramFiles("tomo", "train", path, tmp_path / "tomo.xml")
    data = DataConfig(species=(Species("a", 3.0),))
    for mode in MODES:
        with open_tomogram(files, data, mode=mode) as tomogram:
            assert tomogram.voxel_size_angstrom == pytest.approx(9.5)
            if mode == "streamed":
                assert tomogram.particles is None
            else:
                assert tomogram.particles is not None
                assert tomogram.particles.positions_vox.tolist() == [[1, 2, 3]]


def test_what_stays_in_memory_is_known_beforehand(tmp_path: Path) -> None:
    for name, expected in (("a.mrc", 0), ("a.mrc.gz", 21 * 18 * 25 * 4)):
        write_mrc(tmp_path / name, np.ones(SHAPE, np.float32), 9.5)
        with open_volume(tmp_path / name) as reader:
            assert reader.resident_bytes == expected


def test_tomograms_come_in_order_and_faults_at_their_turn(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    tomograms = []
    for name in ("a", "b", "c"):
        write_mrc(tmp_path / f"{name}.mrc", rng.normal(size=SHAPE).astype(np.float32), 9.5)
        tomograms.append(TomogramFiles(name, "test", tmp_path / f"{name}.mrc"))
    streamed = list(stream_tomograms(tomograms, DataConfig()))
    assert [tomogram.name for tomogram in streamed] == ["a", "b", "c"]
    for tomogram in streamed:
        with pytest.raises(ValueError, match="closed"):
            tomogram.read((slice(0, 2),) * 3)
    faulty = np.array(rng.normal(size=SHAPE), np.float32)
    with (tmp_path / "c.mrc").open("r+b") as file:
        faulty[20, 3, 4] = np.nan
        file.seek(1024)
        file.write(faulty.tobytes())
    stream = stream_tomograms(tomograms, DataConfig())
    assert [next(stream).name, next(stream).name] == ["a", "b"]
    with pytest.raises(InputError, match=r"c\.mrc: 1 of 9450 voxels .*NaN.* 4 3 20"):
        next(stream)
    abandoned = stream_tomograms(tomograms, DataConfig())
    assert next(abandoned).name == "a"
    abandoned.close()
