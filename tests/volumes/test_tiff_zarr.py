"""TIFF stacks and OME-Zarr images, against raw bytes."""

from __future__ import annotations

import json
import struct
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import is_volume, open_volume, read_volume, write_mrc

tifffile = pytest.importorskip("tifffile")

VALUES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def test_real_microtubule(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "tomograms" / "cylindra_13pf_MT.tif"
    raw = path.read_bytes()
    volume = read_volume(path)
    assert volume.data.shape == (36, 206, 94)
    assert volume.voxel_size_angstrom == pytest.approx(10.52, rel=1e-6)
    # uncompressed uint8 in one piece, from the offset that the first directory's StripOffsets (tag 273) gives
    order = "<" if raw[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", raw, 4)
    (entries,) = struct.unpack_from(order + "H", raw, directory)
    tags = [struct.unpack_from(order + "HHII", raw, directory + 2 + 12 * i) for i in range(entries)]
    (offset,) = (value for tag, _, _, value in tags if tag == 273)
    expected = np.frombuffer(raw, np.uint8, 36 * 206 * 94, offset).reshape(36, 206, 94)
    np.testing.assert_array_equal(volume.data, expected)
    write_mrc(tmp_path / "mt.mrc", volume.data, volume.voxel_size_angstrom)
    again = read_volume(tmp_path / "mt.mrc")
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.voxel_size_angstrom == pytest.approx(10.52, rel=1e-6)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_plain_stacks(tmp_path: Path, order: str, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES, byteorder=order, compression=compression, photometric="minisblack")
    with open_volume(path) as reader:
        np.testing.assert_array_equal(reader.read((slice(1, 3), slice(0, 2), slice(4, 5))), VALUES[1:3, 0:2, 4:5])
        np.testing.assert_array_equal(reader.read(), VALUES)
    assert read_volume(path).voxel_size_angstrom is None


def test_voxel_sizes_of_ome_and_imagej(tmp_path: Path) -> None:
    ome = {"axes": "ZYX", "PhysicalSizeX": 1.35, "PhysicalSizeY": 1.35, "PhysicalSizeZ": 1.35}
    ome |= {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", VALUES, metadata=ome)
    assert read_volume(tmp_path / "a.ome.tif").voxel_size_angstrom == pytest.approx(13.5)
    metadata = {"spacing": 0.002, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "b.tif", VALUES, imagej=True, resolution=(1000, 1000), metadata=metadata)
    volume = read_volume(tmp_path / "b.tif")
    assert volume.voxel_size_zyx_angstrom == pytest.approx((20.0, 10.0, 10.0))
    with pytest.raises(InputError, match="not cubes"):
        _ = volume.voxel_size_angstrom
    tifffile.imwrite(tmp_path / "c.tif", VALUES, imagej=True, metadata={"axes": "ZYX"})
    assert read_volume(tmp_path / "c.tif").voxel_size_angstrom is None


def test_tiffs_that_are_no_volume(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_volume(tmp_path / "a.tif")

    tifffile.imwrite(tmp_path / "a.tif", VALUES[0])
    refused("is not a volume")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    refused("is not a volume of grey values")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 5, 7), np.complex64))
    refused("not densities")
    (tmp_path / "a.tif").write_bytes(b"II*\0 nonsense")
    refused("a TIFF without images")
    (tmp_path / "a.tif").write_bytes(b"nonsense, but long enough to hold a header")
    refused("not readable as TIFF")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 64), np.float32))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:5000])
    refused("truncated|not readable")


def zarr_v2(folder: Path, values: np.ndarray, *, whole: bool = False) -> None:
    """A Zarr 2 array of uncompressed chunks of one section, or of one chunk, by hand."""
    folder.mkdir(parents=True)
    chunks = list(values.shape) if whole else [1] * (values.ndim - 2) + list(values.shape[-2:])
    metadata = {"zarr_format": 2, "shape": list(values.shape), "chunks": chunks, "dtype": values.dtype.str}
    metadata |= {"compressor": None, "fill_value": 0, "order": "C", "filters": None}
    (folder / ".zarray").write_text(json.dumps(metadata))
    if whole:
        (folder / ".".join("0" * values.ndim)).write_bytes(values.tobytes())
    for z in range(0 if whole else values.shape[-3]):
        name = ".".join(["0"] * (values.ndim - 3) + [str(z), "0", "0"])
        (folder / name).write_bytes(values[..., z, :, :].tobytes())


def zarr_v3(folder: Path, values: np.ndarray) -> None:
    """A Zarr 3 array of one uncompressed chunk, by hand."""
    (folder / "c" / "0" / "0").mkdir(parents=True)
    grid = {"name": "regular", "configuration": {"chunk_shape": list(values.shape)}}
    metadata = {"zarr_format": 3, "node_type": "array", "shape": list(values.shape), "data_type": values.dtype.name}
    metadata |= {"chunk_grid": grid, "fill_value": 0, "attributes": {}, "dimension_names": ["z", "y", "x"]}
    metadata |= {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}}
    metadata |= {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}
    (folder / "zarr.json").write_text(json.dumps(metadata))
    (folder / "c" / "0" / "0" / "0").write_bytes(values.tobytes())


def multiscales(unit: str | None, scales: list[float], *, leading: int = 0) -> dict:
    axes = [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "zyx"]
    axes = [{"name": name, "type": "channel"} for name in "tc"[:leading]] + axes
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1.0] * leading + [s] * 3}]}
        for i, s in enumerate(scales)
    ]
    return {"version": "0.4", "name": "/", "axes": axes, "datasets": datasets}


def test_copick_layout(tmp_path: Path) -> None:
    path = tmp_path / "VoxelSpacing10.000" / "wbp.zarr"
    zarr_v2(path / "0", VALUES)
    zarr_v2(path / "1", VALUES[:2, :2, :2])
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscales("angstrom", [10.0, 20.0])]}))
    assert is_volume(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, VALUES)
    assert volume.voxel_size_angstrom == 10.0
    for coarse in (read_volume(path, level=1), read_volume(path / "1")):
        np.testing.assert_array_equal(coarse.data, VALUES[:2, :2, :2])
        assert coarse.voxel_size_angstrom == 20.0
    with open_volume(path) as reader:
        np.testing.assert_array_equal(reader.read((slice(1, 2), slice(1, 4), slice(0, 3))), VALUES[1:2, 1:4, 0:3])
    with pytest.raises(InputError, match="no level 2: the image has 2"):
        open_volume(path, level=2)


def test_newer_ngff_and_leading_axes(tmp_path: Path) -> None:
    zarr_v3(tmp_path / "a.zarr" / "0", VALUES.astype("<f4"))
    group = {"zarr_format": 3, "node_type": "group"}
    group |= {"attributes": {"ome": {"version": "0.5", "multiscales": [multiscales("nanometer", [1.35])]}}}
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(group))
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.data, VALUES)
    assert volume.voxel_size_angstrom == pytest.approx(13.5)
    zarr_v2(tmp_path / "b.zarr" / "0", VALUES[None, None])
    (tmp_path / "b.zarr" / ".zattrs").write_text(json.dumps({"multiscales": [multiscales(None, [10.0], leading=2)]}))
    volume = read_volume(tmp_path / "b.zarr")
    np.testing.assert_array_equal(volume.data, VALUES)
    assert volume.voxel_size_angstrom is None
    zarr_v2(tmp_path / "c.zarr", VALUES)
    np.testing.assert_array_equal(read_volume(tmp_path / "c.zarr").data, VALUES)


def test_zarrs_that_are_no_volume(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    path.mkdir()
    with pytest.raises(InputError, match="neither a Zarr array nor an OME-Zarr image"):
        open_volume(path)
    (path / ".zattrs").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        open_volume(path)
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscales("angstrom", [10.0])]}))
    with pytest.raises(InputError, match="not readable as Zarr"):
        open_volume(path)
    zarr_v2(path / "0", np.stack([VALUES, VALUES]))
    with pytest.raises(InputError, match="axes z, y, x of an array of 4 axes"):
        open_volume(path)
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscales("angstrom", [10.0], leading=1)]}))
    with pytest.raises(InputError, match="not one volume"):
        open_volume(path)
    zarr_v2(tmp_path / "b.zarr", VALUES)
    (tmp_path / "b.zarr" / "1.0.0").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(tmp_path / "b.zarr")
    write_mrc(tmp_path / "a.mrc", VALUES)
    with pytest.raises(InputError, match="only OME-Zarr images have levels"):
        open_volume(tmp_path / "a.mrc", level=1)


def named_axes(names: str, scales: dict[str, float]) -> dict:
    """Metadata of an image whose axes have these names, one letter each, in Å."""
    axes = [{"name": n, "type": "space", "unit": "angstrom"} if n in "zyx" else {"name": n} for n in names]
    scale = [scales.get(name, 1.0) for name in names]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}


@pytest.mark.parametrize("names", ["".join(order) for order in permutations("xyz")] + ["tczyx", "xyzc", "cxtyz"])
def test_a6_axes_are_taken_by_their_names(tmp_path: Path, names: str) -> None:
    """Stored in any order, voxels, parts of them and edges of voxels come out as z, y, x."""
    spatial = [name for name in names if name in "zyx"]
    stored = VALUES.transpose([("zyx").index(name) for name in spatial])
    stored = np.ascontiguousarray(stored.reshape([stored.shape[spatial.index(n)] if n in "zyx" else 1 for n in names]))
    zarr_v2(tmp_path / "a.zarr" / "0", stored, whole=True)
    metadata = named_axes(names, {"x": 10.0, "y": 20.0, "z": 30.0})
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(metadata))
    for path in (tmp_path / "a.zarr", tmp_path / "a.zarr" / "0"):
        with open_volume(path) as reader:
            assert reader.shape_zyx == VALUES.shape
            assert reader.voxel_size_zyx_angstrom == (30.0, 20.0, 10.0)
            np.testing.assert_array_equal(reader.read(), VALUES)
            np.testing.assert_array_equal(reader.read((slice(1, 3), slice(0, 2), slice(4, 5))), VALUES[1:3, 0:2, 4:5])


@pytest.mark.parametrize("names", ["abc", "zyw", "zzyx", "zyxx", "zy", "xyzt"])
def test_a6_unknown_axes_are_refused(tmp_path: Path, names: str) -> None:
    zarr_v2(tmp_path / "a.zarr" / "0", VALUES)
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(named_axes(names, {})))
    with pytest.raises(InputError, match="not x, y and z, each once, besides t and c"):
        open_volume(tmp_path / "a.zarr")


def test_a6_names_of_older_images_and_of_plain_arrays(tmp_path: Path) -> None:
    """NGFF 0.3 lists names alone; Zarr 3 keeps names of dimensions with the array."""
    turned = np.ascontiguousarray(VALUES.transpose(2, 1, 0))
    zarr_v2(tmp_path / "a.zarr" / "0", turned)
    metadata = {"multiscales": [{"version": "0.3", "axes": ["x", "y", "z"], "datasets": [{"path": "0"}]}]}
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(metadata))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr").data, VALUES)
    zarr_v3(tmp_path / "b.zarr", turned)
    text = (tmp_path / "b.zarr" / "zarr.json").read_text()
    (tmp_path / "b.zarr" / "zarr.json").write_text(text.replace('["z", "y", "x"]', '["x", "y", "z"]'))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.zarr").data, VALUES)


def test_a_zarr_array_larger_than_memory_is_refused_in_one_line(tmp_path: Path) -> None:
    """The library ends the process where it finds no memory; the metadata of a few bytes may declare any shape."""
    pytest.importorskip("tensorstore")
    path = tmp_path / "a.zarr"
    path.mkdir()
    array = {"zarr_format": 2, "dtype": "<f4", "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    for shape, chunks in (([6, 7, 2**40], [6, 7, 8]), ([6, 7, 2**40], [6, 7, 2**40])):
        (path / ".zarray").write_text(json.dumps(array | {"shape": shape, "chunks": chunks}))
        with pytest.raises(InputError, match=r"1099511627776 voxels \(z, y, x\) would take 1\.72e\+05 GiB"):
            read_volume(path)
