"""EM and HDF5 volumes, and IMOD's further suffixes (section C of the field's faults)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.datasets import discover
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import is_volume, open_volume, read_volume, write_mrc

pytestmark = pytest.mark.fast

DATA = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4) - 7


def em_file(path: Path, data: np.ndarray, code: int, machine: int = 6) -> Path:
    """An EM file as TOM writes it: machine, type and size (x, y, z) in a header of 512 bytes."""
    order = "<" if machine == 6 else ">"
    header = bytearray(512)
    header[0], header[3] = machine, code
    header[4:16] = np.array(data.shape[::-1], f"{order}i4").tobytes()
    path.write_bytes(bytes(header) + data.astype(data.dtype.newbyteorder(order)).tobytes())
    return path


@pytest.mark.parametrize(("code", "dtype"), [(1, "i1"), (2, "i2"), (4, "i4"), (5, "f4"), (9, "f8")])
@pytest.mark.parametrize("machine", [6, 3])
def test_c_em_volumes(tmp_path: Path, code: int, dtype: str, machine: int) -> None:
    path = em_file(tmp_path / "a.em", DATA.astype(dtype), code, machine)
    assert is_volume(path)
    with open_volume(path) as reader:
        assert reader.shape_zyx == DATA.shape
        assert reader.voxel_size_angstrom is None
        np.testing.assert_array_equal(reader.read((slice(1, 2), slice(0, 3), slice(1, 3))), DATA[1:2, :, 1:3])
    np.testing.assert_array_equal(read_volume(path).data, DATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_volume(path)
    path.write_bytes(b"short")
    with pytest.raises(InputError, match="5 bytes, less than a header"):
        open_volume(path)


def test_c_a_motive_list_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    em_file(tmp_path / "train" / "TS_1.em", DATA, 5)
    write_annotations(tmp_path / "train" / "TS_1_motl.em", Particles([[1, 2, 3]], [1]), fmt="em")
    assert not is_volume(tmp_path / "train" / "TS_1_motl.em")
    assert [tomogram.name for tomogram in discover(tmp_path)["train"]] == ["TS_1"]


def test_c_hdf_volumes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra hdf is not installed")
    path = tmp_path / "a.hdf"
    with h5py.File(path, "w") as file:
        image = file.create_group("MDF/images/0")
        image.create_dataset("image", data=DATA)
        for axis in "xyz":
            image.attrs[f"EMAN.apix_{axis}"] = np.array([7.5], np.float32)
    with open_volume(path) as reader:
        assert reader.voxel_size_angstrom == 7.5
        np.testing.assert_array_equal(reader.read((slice(0, 1), slice(1, 3), slice(None))), DATA[:1, 1:])
    with h5py.File(path, "a") as file:
        file.create_dataset("other", data=DATA)
    with pytest.raises(InputError, match=r"2 arrays of three axes \(/MDF/images/0/image, /other\)"):
        open_volume(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="not readable as HDF5"):
        open_volume(path)


def test_c_without_h5py_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"needs the package h5py; pip install 'robpicker-jax\[hdf\]'"):
        open_volume(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", [".ali", ".preali"])
def test_c_imod_stacks_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    write_mrc(tmp_path / "a.mrc", DATA, 10.0)
    (tmp_path / "a.mrc").rename(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").data, DATA)
