"""MRC volumes against hand-made headers and against mrcfile."""

from __future__ import annotations

import gzip
import itertools
import re
import struct
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, read_volume, volume_stem, write_mrc

MODES = {0: "b", 1: "h", 2: "f", 6: "H", 12: "e"}


def raw_mrc(
    values: np.ndarray,
    mode: int,
    *,
    order: str = "<",
    axes: tuple[int, int, int] = (1, 2, 3),
    cell: float = 10.0,
    extended: bytes = b"",
    stamp: bytes | None = None,
    space_group: int = 1,
    imod_flags: int | None = None,
) -> bytes:
    """An MRC file written with struct alone; `values` in file order (sections, rows, columns)."""
    nz, ny, nx = values.shape
    grid = [0, 0, 0]
    for axis, n in zip(axes, (nx, ny, nz), strict=True):
        grid[axis - 1] = n
    header = bytearray(1024)
    struct.pack_into(order + "10i", header, 0, nx, ny, nz, mode, 0, 0, 0, *grid)
    struct.pack_into(order + "3f", header, 40, *(cell * n for n in grid))
    struct.pack_into(order + "3f", header, 52, 90, 90, 90)
    struct.pack_into(order + "3i", header, 64, *axes)
    struct.pack_into(order + "3f", header, 76, float(values.min()), float(values.max()), float(values.mean()))
    struct.pack_into(order + "2i", header, 88, space_group, len(extended))
    if imod_flags is not None:
        struct.pack_into(order + "2i", header, 152, 1146047817, imod_flags)
    header[208:212] = b"MAP "
    header[212:216] = stamp if stamp is not None else (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    body = struct.pack(f"{order}{values.size}{MODES[mode]}", *values.reshape(-1).tolist())
    return bytes(header) + extended + body


def volume_file(tmp_path: Path, content: bytes, name: str = "v.mrc") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamped", [True, False])
def test_modes_and_byte_orders(tmp_path: Path, mode: int, order: str, stamped: bool) -> None:
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    content = raw_mrc(values, mode, order=order, stamp=None if stamped else bytes(4), extended=b"x" * 160)
    volume = read_volume(volume_file(tmp_path, content))
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, values)
    assert volume.voxel_size_angstrom == pytest.approx(10.0)


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_axes_in_any_order_come_out_zyx(tmp_path: Path, axes: tuple[int, int, int]) -> None:
    zyx = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    columns, rows, sections = ("xyz"[axis - 1] for axis in axes)
    stored = np.einsum(f"zyx->{sections}{rows}{columns}", zyx)
    path = volume_file(tmp_path, raw_mrc(stored, 2, axes=axes))
    with open_volume(path) as reader:
        assert reader.shape_zyx == (2, 3, 5)
        np.testing.assert_array_equal(reader.read(), zyx)
        part = reader.read((slice(1, 2), slice(0, 2), slice(2, 5)))
    np.testing.assert_array_equal(part, zyx[1:2, 0:2, 2:5])
    assert part.flags.c_contiguous


def test_unsigned_bytes(tmp_path: Path) -> None:
    values = np.array([0, 1, 127, 128, 200, 255], np.uint8).reshape(1, 2, 3)
    signed = values.view(np.int8)
    plain = raw_mrc(signed, 0)
    np.testing.assert_array_equal(read_volume(volume_file(tmp_path, plain)).data, signed)
    np.testing.assert_array_equal(read_volume(volume_file(tmp_path, raw_mrc(signed, 0, imod_flags=1))).data, signed)
    np.testing.assert_array_equal(read_volume(volume_file(tmp_path, raw_mrc(signed, 0, imod_flags=0))).data, values)
    old = bytearray(plain)
    struct.pack_into("<2f", old, 76, 0.0, 255.0)  # a program older than the standard: only its maximum tells
    np.testing.assert_array_equal(read_volume(volume_file(tmp_path, bytes(old))).data, values)


def test_four_bit_voxels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 16, (3, 4, 5))
    header = bytearray(raw_mrc(values, 0)[:1024])
    struct.pack_into("<i", header, 12, 101)
    padded = np.concatenate([values, np.zeros((3, 4, 1), int)], axis=2)
    body = (padded[:, :, 0::2] | padded[:, :, 1::2] << 4).astype(np.uint8).tobytes()
    np.testing.assert_array_equal(read_volume(volume_file(tmp_path, bytes(header) + body)).data, values)


@given(
    st.sampled_from([np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32, np.float64]),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from([None, 7.84, 10.0]),
    st.sampled_from(["a.mrc", "a.rec", "a.mrc.gz", "a.map.bz2"]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_written_volumes_are_read_back_and_valid(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: type,
    shape: tuple[int, int, int],
    voxel_size: float | None,
    name: str,
    seed: int,
) -> None:
    values = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    path = tmp_path_factory.getbasetemp() / name
    write_mrc(path, values, voxel_size)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, values)
    assert volume.voxel_size_angstrom == (None if voxel_size is None else pytest.approx(voxel_size, rel=1e-6))
    with mrcfile.open(path) as independent:
        np.testing.assert_array_equal(independent.data.astype(np.float64), values)
        assert independent.is_volume()
    if dtype is not np.float16:  # mrcfile's validator sums float16 in float16, and overflows
        assert mrcfile.validate(path)


def test_write_refuses_what_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="three axes"):
        write_mrc(tmp_path / "a.mrc", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="NaN"):
        write_mrc(tmp_path / "a.mrc", np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="complex"):
        write_mrc(tmp_path / "a.mrc", np.zeros((2, 2, 2), complex))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cell", [0.0, 1.0, float("nan")])
def test_unknown_voxel_size(tmp_path: Path, cell: float) -> None:
    path = volume_file(tmp_path, raw_mrc(np.zeros((2, 2, 2)), 2, cell=cell))
    assert read_volume(path).voxel_size_angstrom is None


def test_voxels_that_are_no_cubes(tmp_path: Path) -> None:
    content = bytearray(raw_mrc(np.zeros((2, 2, 2)), 2))
    struct.pack_into("<f", content, 48, 50.0)
    volume = read_volume(volume_file(tmp_path, bytes(content)))
    assert volume.voxel_size_zyx_angstrom == (25.0, 10.0, 10.0)
    with pytest.raises(InputError, match="not cubes: 10 x 10 x 25"):
        _ = volume.voxel_size_angstrom


def damaged() -> dict[str, tuple[bytes, str]]:
    good = raw_mrc(np.zeros((4, 4, 4)), 2)

    def patched(offset: int, *values: int) -> bytes:
        content = bytearray(good)
        struct.pack_into(f"<{len(values)}i", content, offset, *values)
        return bytes(content)

    gz = gzip.compress(good)
    return {
        "empty": (b"", "not an MRC file: 0 bytes"),
        "short header": (good[:500], "not an MRC file: 500 bytes"),
        "no voxels": (good[:1024], "truncated: 1024 bytes, but the header announces 1280"),
        "last byte missing": (good[:-1], "truncated: 1279 bytes"),
        "complex": (patched(12, 4), "complex numbers"),
        "unknown mode": (patched(12, 77), "not an MRC file, or its header is damaged"),
        "no columns": (patched(0, 0), "header is damaged"),
        "negative extended header": (patched(92, -5), "header is damaged"),
        "huge": (patched(0, 1 << 20, 1 << 20, 1 << 20), "truncated"),
        "axes": (patched(64, 1, 1, 3), "axis order mapc mapr maps = 1 1 3"),
        "stack of volumes": (
            patched(88, 401)[:36] + struct.pack("<i", 2) + patched(88, 401)[40:],
            "stack of 2 volumes",
        ),
        "gzip cut": (gz[:-20], "damaged compressed file"),
        "gzip of a truncated file": (gzip.compress(good[:-1]), "truncated"),
        "text": (b"data_\nloop_\n" * 200, "not an MRC file"),
    }


@pytest.mark.parametrize("case", damaged())
def test_damaged_files(tmp_path: Path, case: str) -> None:
    content, message = damaged()[case]
    with pytest.raises(InputError, match=message) as caught:
        read_volume(volume_file(tmp_path, content))
    assert "v.mrc" in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = bad
    path = volume_file(tmp_path, raw_mrc(values, 2))
    with pytest.raises(InputError, match=r"1 of 60 voxels .*NaN.* 3 2 1"):
        read_volume(path)
    with open_volume(path) as reader:
        assert reader.read((slice(0, 1), slice(None), slice(None))).shape == (1, 4, 5)
        assert not np.isfinite(reader.read(check=False)).all()


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "absent.mrc")
    with pytest.raises(InputError, match="no volume format has this suffix"):
        read_volume(volume_file(tmp_path, b"", "a.png"))
    (tmp_path / "folder.mrc").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(tmp_path / "folder.mrc")


@given(st.integers(0, 1023), st.binary(min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_mutated_headers_raise_nothing_but_input_errors(
    tmp_path_factory: pytest.TempPathFactory, offset: int, junk: bytes
) -> None:
    content = bytearray(raw_mrc(np.arange(24.0).reshape(2, 3, 4), 2))
    content[offset : offset + len(junk)] = junk
    path = tmp_path_factory.getbasetemp() / "mutated.mrc"
    path.write_bytes(bytes(content))
    try:
        volume = read_volume(path)
        assert volume.data.size * volume.data.itemsize <= 4 * (len(content) - 1024) * 2
        _ = volume.voxel_size_angstrom
    except InputError:
        pass


def test_memory_mapping_reads_only_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mrc"
    header = raw_mrc(np.zeros((1, 1, 1)), 2)[:1024]
    big = bytearray(header)
    struct.pack_into("<3i", big, 0, 4096, 4096, 256)
    with path.open("wb") as stream:  # 16 GiB on paper, a hole on disk
        stream.write(big)
        stream.truncate(1024 + 4 * 4096 * 4096 * 256)
    with open_volume(path) as reader:
        assert reader.shape_zyx == (256, 4096, 4096)
        assert not reader.read((slice(200, 202), slice(0, 64), slice(0, 64))).any()


def test_stems() -> None:
    assert volume_stem("a/TS_01.mrc") == "TS_01"
    assert volume_stem("b.rec.gz") == "b"
    assert volume_stem("c.1.MRC") == "c.1"


def test_real_densities_and_masks(shared_data: Path) -> None:
    densities = sorted((shared_data / "densities").glob("*.mrc"))
    assert len(densities) == 18
    for path in densities:
        volume = read_volume(path)
        assert volume.voxel_size_angstrom == pytest.approx(10.0, rel=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(volume.data, mrcfile.read(path))
    mask = read_volume(shared_data / "shrec2019" / "masks" / "1bxn.mrc")
    assert mask.voxel_size_angstrom is None
    assert np.count_nonzero(mask.data) == 997


def test_b6_the_same_volume_is_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    values = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    write_mrc(tmp_path / "a.mrc", values, 10.0)
    label = (tmp_path / "a.mrc").read_bytes()[224:304]
    assert label.startswith(b"robpicker_jax ")
    assert not re.search(rb"\d\d:\d\d", label)


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_b6_packed_volumes_are_the_same_bytes_at_any_time(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    written = []
    for seconds in (1e9, 1.7e9):
        monkeypatch.setattr("time.time", lambda now=seconds: now)
        path = tmp_path / f"{seconds:.0f}" / f"a.mrc{suffix}"
        path.parent.mkdir()
        write_mrc(path, values, 10.0)
        written.append(path.read_bytes())
        np.testing.assert_array_equal(read_volume(path).data, values)
    assert written[0] == written[1]
