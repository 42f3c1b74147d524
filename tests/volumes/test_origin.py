"""A7: the origin of a volume, by which viewers place it, goes with its maps and with lists that viewers draw."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands import convert, segment, targets
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import discover, load_particles
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.picking.pick_files import PickFiles, PickTarget
from robpicker_jax.volumes import open_volume, read_volume, write_mrc

SHAPE = (8, 12, 16)
ORIGIN = (-512.0, -512.0, -128.0)
POSITIONS = np.array([[3.0, 4.0, 5.0], [7.5, 2.25, 1.0]])


def volume(path: Path, *, voxel: float = 13.0, compressed: bool = False, **header: Any) -> Path:
    """A volume whose header fields were set by mrcfile."""
    with mrcfile.new(path, compression="gzip" if compressed else None, overwrite=True) as mrc:
        mrc.set_data(np.zeros(SHAPE, np.float32))
        mrc.voxel_size = voxel
        mrc.header.origin = header.pop("origin", (0, 0, 0))
        for name, value in header.items():
            mrc.header[name] = value
    return path


def origin_of(path: Path) -> tuple[float, float, float]:
    with open_volume(path) as reader:
        return reader.origin_angstrom


@pytest.mark.parametrize("compressed", [False, True])
def test_a7_origin_goes_before_nstart(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("v.mrc.gz" if compressed else "v.mrc")
    starts = {"nxstart": 2, "nystart": -3, "nzstart": 4}
    assert origin_of(volume(path, compressed=compressed, origin=ORIGIN, **starts)) == ORIGIN
    assert origin_of(volume(path, compressed=compressed, **starts)) == (26.0, -39.0, 52.0)
    assert origin_of(volume(path, compressed=compressed)) == (0.0, 0.0, 0.0)
    assert read_volume(volume(path, compressed=compressed, origin=ORIGIN)).origin_angstrom == ORIGIN


def test_a7_nstart_follows_the_axes(tmp_path: Path) -> None:
    """Columns run along z: `nxstart` counts columns."""
    path = volume(tmp_path / "v.mrc", mapc=3, mapr=2, maps=1, nxstart=2, nystart=-3, nzstart=4)
    assert origin_of(path) == (52.0, -39.0, 26.0)


@pytest.mark.parametrize("flags", [None, 0, 1, 4, 5])
def test_a7_the_origin_is_the_viewers_whatever_imods_flags(tmp_path: Path, flags: int | None) -> None:
    """ChimeraX takes the stored numbers; bit 2 says which sign IMOD's own programs read."""
    path = volume(tmp_path / "v.mrc", origin=ORIGIN)
    if flags is not None:
        with path.open("r+b") as stream:
            stream.seek(152)
            stream.write(struct.pack("<2i", 1146047817, flags))
    assert origin_of(path) == ORIGIN


def test_a7_remnants_of_memory_are_no_origin(tmp_path: Path) -> None:
    assert origin_of(volume(tmp_path / "a.mrc", origin=(1e20, 0, 0))) == (0.0, 0.0, 0.0)
    assert origin_of(volume(tmp_path / "b.mrc", origin=(np.nan, 1, 1))) == (0.0, 0.0, 0.0)
    assert origin_of(volume(tmp_path / "c.mrc", nxstart=2_000_000_000)) == (0.0, 0.0, 0.0)
    assert origin_of(volume(tmp_path / "d.mrc", origin=ORIGIN, map=b"\0\0\0\0")) == (0.0, 0.0, 0.0)


@given(st.tuples(*[st.floats(-1e5, 1e5, width=32)] * 3))
def test_a7_written_origins_are_read_again(tmp_path_factory: Any, origin: tuple[float, float, float]) -> None:
    path = tmp_path_factory.mktemp("origin") / "v.mrc"
    write_mrc(path, np.zeros(SHAPE, np.float32), 13.0, origin)
    with mrcfile.open(path) as mrc:
        assert tuple(float(mrc.header.origin[axis]) for axis in "xyz") == origin
    assert origin_of(path) == origin


@pytest.mark.parametrize("fmt", ["cmm", "bild"])
def test_a7_lists_of_viewers_are_placed_beside_the_volume(tmp_path: Path, fmt: str) -> None:
    """x = origin + position × voxel size, in every command that writes or reads such a list."""
    path = volume(tmp_path / "t.mrc", origin=ORIGIN)
    write_annotations(tmp_path / "p.csv", Particles(POSITIONS, [1, 1]))
    placed, back = tmp_path / f"t.{fmt}", tmp_path / "back.csv"
    given = ["--volume", str(path)]
    assert call(convert.main, [str(tmp_path / "p.csv"), str(placed), *given]) == 0
    raw = read_annotations(placed, voxel_size_angstrom=1.0).positions_vox
    np.testing.assert_allclose(raw, POSITIONS * 13 + ORIGIN)
    assert call(convert.main, [str(placed), str(back), *given]) == 0
    np.testing.assert_allclose(read_annotations(back).positions_vox, POSITIONS)
    np.testing.assert_allclose(read_lists(tmp_path, fmt=fmt)["t"].positions_vox, POSITIONS)
    PickFiles(tmp_path / "picks", [fmt]).write(PickTarget("t", SHAPE, 13.0, ORIGIN), Particles(POSITIONS, [1, 1]))
    picked = read_annotations(tmp_path / "picks" / f"t.{fmt}", voxel_size_angstrom=1.0).positions_vox
    np.testing.assert_allclose(picked, POSITIONS * 13 + ORIGIN)
    for folder in ("train", "meta"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        volume(tmp_path / "data" / folder / "t.mrc", origin=ORIGIN)
        (tmp_path / "data" / folder / f"t.{fmt}").write_bytes(placed.read_bytes())
    files = discover(tmp_path / "data")["train"][0]
    data = DataConfig(species=(Species("a", 2),))
    found = load_particles(files, data, SHAPE, 13.0, origin_of(files.volume_path))
    np.testing.assert_allclose(found.positions_vox, POSITIONS)


@pytest.mark.parametrize("fmt", ["cmm", "bild"])
def test_a7_another_origin_on_the_command_line(tmp_path: Path, fmt: str) -> None:
    write_annotations(tmp_path / "p.csv", Particles(POSITIONS, [1, 1]))
    out = tmp_path / f"o.{fmt}"
    for text in ("-512,-512,-128", "[-512, -512, -128]"):
        given = ["--voxel-size", "13", "--overwrite", "--to-option", f"origin_angstrom={text}"]
        assert call(convert.main, [str(tmp_path / "p.csv"), str(out), *given]) == 0
        found = read_annotations(out, voxel_size_angstrom=13.0, origin_angstrom=text.strip("[]")).positions_vox
        np.testing.assert_allclose(found, POSITIONS)
    for text in ("1,2", "a,b,c"):
        given = ["--voxel-size", "13", "--overwrite", "--to-option", f"origin_angstrom={text}"]
        assert call(convert.main, [str(tmp_path / "p.csv"), str(out), *given]) == 2


def test_a7_the_case_from_the_field(shared_data: Path, tmp_path: Path) -> None:
    path = volume(tmp_path / "t.mrc", origin=ORIGIN)
    source = shared_data / "cases" / "cmm_of_shifted_volume.cmm"
    assert call(convert.main, [str(source), str(tmp_path / "o.csv"), "--volume", str(path)]) == 0
    found = read_annotations(tmp_path / "o.csv").positions_vox
    np.testing.assert_allclose(found, [[27.58, 21.75, 18.10]], atol=0.005)


def test_a7_maps_lie_where_their_tomogram_lies(
    tiny_data: Path, tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    with mrcfile.open(next((tiny_data / "test").glob("*_000.mrc"))) as mrc:
        write_mrc(folder / "t.mrc", mrc.data, 22.0, ORIGIN)
    write_annotations(folder / "t_objl.xml", Particles([[20, 20, 15]], [1]))
    (tmp_path / "data" / "meta").mkdir()
    assert call(targets.main, ["--config", str(tiny_config), "--data", str(tmp_path / "data")]) == 0
    assert origin_of(folder / "t_target.mrc") == ORIGIN
    out = tmp_path / "maps"
    given = ["--workdir", str(tiny_run), "--out", str(out), "--scores", str(folder / "t.mrc")]
    assert call(segment.main, given) == 0
    assert len(list(out.glob("*.mrc"))) == 5
    assert {origin_of(path) for path in out.glob("*.mrc")} == {ORIGIN}
