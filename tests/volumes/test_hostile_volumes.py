"""Kinds of hostile volumes (field row E9): refused in one line, without the memory and the time that they declare."""

from __future__ import annotations

import gzip
import json
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc

pytestmark = pytest.mark.fast

VALUES = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)


def image(folder: Path, array: dict[str, Any] | None = None, multiscale: dict[str, Any] | None = None) -> Path:
    """An OME-Zarr image, some of whose metadata are replaced."""
    path = folder / "a.zarr"
    (path / "0").mkdir(parents=True)
    whole: dict[str, Any] = {"zarr_format": 2, "shape": [6, 7, 8], "chunks": [6, 7, 8], "dtype": "<f4", "order": "C"}
    whole |= {"compressor": None, "fill_value": 0, "filters": None}
    (path / "0" / ".zarray").write_text(json.dumps(whole | (array or {})))
    (path / "0" / "0.0.0").write_bytes(VALUES.tobytes())
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [10.0, 10.0, 10.0]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [image | (multiscale or {})]}))
    return path


def scaled(scale: Any) -> dict[str, Any]:
    return {"datasets": [{"path": "0", "coordinateTransformations": scale}]}


@pytest.mark.parametrize(
    "multiscale",
    [
        {"axes": 5},
        {"axes": "zyx"},
        {"axes": {"a": 1}},
        {"coordinateTransformations": 9},
        scaled(7),
        scaled("scale"),
        scaled({"scale": [1, 2, 3]}),
        scaled([7, None, {"scale": 3}]),
        scaled([{"type": "scale", "scale": [10**400] * 3}]),
        scaled([{"type": "scale", "scale": [1e308] * 3}]),
        scaled([{"type": "scale", "scale": [-1, 1, 1]}]),
        {"axes": [{"name": name, "unit": {}} for name in "zyx"]},
    ],
)
def test_e9_metadata_of_other_shapes_leave_the_voxel_size_open(multiscale: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    volume = read_volume(image(tmp_path, multiscale=multiscale))
    np.testing.assert_array_equal(volume.data, VALUES)
    assert volume.voxel_size_angstrom in (None, 10.0)


@pytest.mark.parametrize(
    ("multiscale", "message"),
    [
        ({"datasets": {"0": {"path": "0"}}}, "no level 0"),
        ({"datasets": "0"}, "no level 0"),
        ({"datasets": 3}, "no level 0"),
        ({"datasets": [3]}, "no level 0"),
        ({"axes": [None, None, None]}, "axes"),
        ({"datasets": [{"path": "../../../etc"}]}, "outside"),
        ({"datasets": [{"path": "/etc"}]}, "outside"),
        ({"datasets": [{"path": "a\0b"}]}, "outside"),
        ({"datasets": [{"path": "a" * 5000}]}, "name too long"),
    ],
)
def test_e9_levels_that_are_none_are_refused(multiscale: dict[str, Any], message: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    with pytest.raises(InputError, match=message):
        read_volume(image(tmp_path, multiscale=multiscale))


@pytest.mark.parametrize("datasets", [7, "0", [3, None, "x"]])
def test_e9_a_level_by_its_own_path_in_an_odd_image(datasets: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    np.testing.assert_array_equal(read_volume(image(tmp_path, multiscale={"datasets": datasets}) / "0").data, VALUES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ({"shape": [0, 7, 8]}, "no voxels"),
        ({"shape": [2**40] * 3}, "GiB of memory"),
        ({"shape": [2**62, 7, 8]}, "GiB of memory"),
        ({"chunks": [2**40, 7, 8]}, "GiB of memory"),
        ({"shape": [300, 300, 300], "chunks": [1, 1, 1]}, "would be read at once"),
        ({"chunks": [0, 7, 8]}, "not readable"),
        ({"shape": "abc"}, "not readable"),
        ({"dtype": "<c8"}, "not readable|not densities"),
        ({"compressor": {"id": "nope"}}, "not readable"),
    ],
)
def test_e9_absurd_arrays_are_refused_before_memory_or_time_is_spent(
    array: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    began = time.process_time()
    with pytest.raises(InputError, match=message):
        read_volume(image(tmp_path, array))
    assert time.process_time() - began < 5


def directory(next_: int) -> bytes:
    """A TIFF directory of a 4 × 4 image of bytes at 400."""
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 400), (278, 3, 1, 4), (279, 4, 1, 16)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_)


def test_e9_tiff_directories_in_a_circle_end(tmp_path: Path) -> None:
    size = len(directory(0))
    for numbers in ([8], [8 + size, 8], [8 + size, 8 + size]):
        content = b"II*\0" + struct.pack("<I", 8) + b"".join(map(directory, numbers))
        (tmp_path / "a.tif").write_bytes(content + bytes(755 - len(content)))
        if len(numbers) == 1:
            with pytest.raises(InputError, match="not a volume"):
                read_volume(tmp_path / "a.tif")
        else:
            assert read_volume(tmp_path / "a.tif").data.shape == (2, 4, 4)


def test_e9_ome_metadata_that_declare_millions_of_planes_are_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = 'DimensionOrder="XYZCT" SizeC="1" SizeT="1" SizeX="4" SizeY="4" SizeZ="99999999" Type="uint8"'
    ome = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<OME xmlns="{ome}"><Image ID="Image:0"><Pixels ID="Pixels:0" {pixels}><TiffData/></Pixels></Image></OME>'
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((3, 4, 4), np.uint8), description=text, metadata=None, photometric="minisblack")
    began = time.process_time()
    with pytest.raises(InputError, match="99999999 planes"):
        read_volume(path)
    assert time.process_time() - began < 5


def test_e9_a_packed_file_takes_no_more_memory_than_its_volume(tmp_path: Path) -> None:
    """Zeros without end behind the voxels, and a header that announces more than any machine has."""
    write_mrc(tmp_path / "a.mrc", VALUES, 10.0)
    content = (tmp_path / "a.mrc").read_bytes()
    with gzip.open(tmp_path / "b.mrc.gz", "wb", compresslevel=1) as file:
        file.write(content)
        for _ in range(200):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mrc.gz").data, VALUES)
    header = np.array([60_000] * 3, "<i4").tobytes() + content[12:1024]
    (tmp_path / "c.mrc.gz").write_bytes(gzip.compress(header))
    with pytest.raises(InputError, match="more than this machine's memory"):
        read_volume(tmp_path / "c.mrc.gz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
