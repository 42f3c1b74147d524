"""Formats that users hand over (section C of the field's faults): right values, and back through the writers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import matrix_from_euler
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import discover, load_particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast

NDJSON = """\
{"type": "orientedPoint", "location": {"x": 89.9, "y": 197.4, "z": 71.9}, "xyz_rotation_matrix": [[1,0,0],[0,0,-1],[0,1,0]]}

{"type": "point", "location": {"x": 12, "y": 30.5, "z": 8.25}}
"""
CBOX = """
data_global

_cbox_format_version   1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
10.5 20.25 50.0 25.0 25.0 25.0 <NA> <NA> 0.81 <NA> <NA>
40.0 20.25 61.0 25.0 25.0 25.0 <NA> <NA> <NA> <NA> <NA>
"""
M_SPECIES = """
data_

loop_
_wrpCoordinateX{0} #1
_wrpCoordinateY{0} #2
_wrpCoordinateZ{0} #3
_wrpAngleRot{0} #4
_wrpAngleTilt{0} #5
_wrpAnglePsi{0} #6
_wrpSourceName #7
4142.123	3272.708	777.879	-74.0	102.2	-102.1	TS_11.tomostar
"""
PYTOM = """
<ParticleList>
  <Particle Filename="Particles/particle_0.em">
    <Rotation Z1="10.0" Z2="20.0" X="30.0" Paradigm="ZXZ"/>
    <Shift X="1.0" Y="0.0" Z="0.0"/>
    <PickPosition X="100.0" Y="200.0" Z="50.0" Origin="tomo_1.em"/>
    <Score Type="FLCFScore" RemoveAutocorrelation="False" Value="0.31"/>
    <Class Name="2"/>
  </Particle>
</ParticleList>
"""


def test_c_portal_points(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text(NDJSON)
    found = read_annotations(path)
    assert found.positions_vox.tolist() == [[89.9, 197.4, 71.9], [12, 30.5, 8.25]]
    np.testing.assert_array_equal(found.rotations[0], [[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert np.isnan(found.rotations[1]).all()
    write_annotations(tmp_path / "b.ndjson", found)
    types = [json.loads(line)["type"] for line in (tmp_path / "b.ndjson").read_text().splitlines()]
    assert types == ["orientedPoint", "point"]
    for text, message in [
        ("{", "line 1: not readable as JSON"),
        ('{"type": "segmentationMask"}', "line 1: no point"),
        ('{"type": "point", "location": {"x": 1, "y": 2}}', "line 1: z is ''"),
        (NDJSON.replace("0,0,-1", "0,0,-2"), "line 1: xyz_rotation_matrix is not a 3 x 3 rotation"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_annotations(path)


def test_c_boxes_are_corners_in_x_and_y_and_centres_in_z(tmp_path: Path) -> None:
    path = tmp_path / "a.cbox"
    path.write_text(CBOX)
    found = read_annotations(path)
    assert found.positions_vox.tolist() == [[23.0, 32.75, 50.0], [52.5, 32.75, 61.0]]
    np.testing.assert_array_equal(found.scores, [0.81, np.nan])
    write_annotations(tmp_path / "b.cbox", found, box_vox=11)
    back = read_annotations(tmp_path / "b.cbox")
    np.testing.assert_allclose(back.positions_vox, found.positions_vox, atol=1e-6)
    np.testing.assert_array_equal(back.scores, found.scores)
    assert "_cbox_format_version" in (tmp_path / "b.cbox").read_text()
    write_annotations(tmp_path / "none.cbox", Particles.empty())
    assert len(read_annotations(tmp_path / "none.cbox", allow_empty=True)) == 0


class _Trap:
    """What a pickle may do to whoever opens it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "x")


def test_c_a_pickle_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sprung = tmp_path / "sprung"
    located, volume = tmp_path / "train" / "t.tloc", tmp_path / "train" / "t.mrc"
    write_mrc(volume, np.zeros((4, 5, 6), np.float32), 10.0)
    located.write_bytes(pickle.dumps(_Trap(sprung)))
    line = "TomoTwin's .tloc file is a Python pickle, which may run code and is not opened"
    for fmt in (None, "coords"):
        with pytest.raises(InputError, match=rf"{line}.*\.coords or \.cbox files that tomotwin_pick\.py makes"):
            read_annotations(located, fmt=fmt)
    assert call(convert.main, [str(located), str(tmp_path / "o.csv")]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1
    (files,) = discover(tmp_path)["train"]
    with pytest.raises(InputError, match=rf"beside it t\.tloc: {line}: give the \.coords"):
        load_particles(files, DataConfig(), (4, 5, 6))
    assert not sprung.exists()
    pickle.loads(located.read_bytes()).close()
    assert sprung.exists()  # the trap is one


def test_c_napari_points_are_z_y_x(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("index,axis-0,axis-1,axis-2,score\n0,20.0,30.5,40.25,0.5\n1,21.0,31.5,41.25,0.25\n")
    assert format_of(path, None).name == "napari"
    found = read_annotations(path)
    assert found.positions_vox.tolist() == [[40.25, 30.5, 20.0], [41.25, 31.5, 21.0]]
    assert found.scores.tolist() == [0.5, 0.25]
    assert not found.extra
    write_annotations(tmp_path / "b.csv", found, fmt="napari")
    assert (tmp_path / "b.csv").read_text().startswith("index,axis-0,axis-1,axis-2,")
    np.testing.assert_array_equal(read_annotations(tmp_path / "b.csv").positions_vox, found.positions_vox)


@pytest.mark.parametrize("number", ["1", ""])
def test_c_m_species_are_in_angstrom(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.star"
    path.write_text(M_SPECIES.format(number))
    assert format_of(path, None).name == "m_species"
    found = read_annotations(path, voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.positions_vox, [[414.2123, 327.2708, 77.7879]])
    np.testing.assert_allclose(found.rotations[0], matrix_from_euler([-74.0, 102.2, -102.1], "relion"))
    assert found.tomograms.tolist() == ["TS_11"]
    with pytest.raises(InputError, match="give the voxel size"):
        read_annotations(path)
    with pytest.raises(InputError, match="cannot be written"):
        write_annotations(path, found, fmt="m_species")


def test_c_pytom_adds_the_shift(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PYTOM)
    assert format_of(path, None).name == "pytom"
    found = read_annotations(path)
    assert found.positions_vox.tolist() == [[101, 200, 50]]
    np.testing.assert_allclose(found.rotations[0], matrix_from_euler([10.0, 20.0, 30.0], "deepfinder"))
    assert found.scores.tolist() == [0.31]
    assert found.labels.tolist() == [2]
    assert found.tomograms.tolist() == ["tomo_1.em"]
    write_annotations(tmp_path / "b.xml", found, fmt="pytom")
    back = read_annotations(tmp_path / "b.xml")
    assert back.positions_vox.tolist() == [[101, 200, 50]]
    assert back.tomograms.tolist() == ["tomo_1"]
    path.write_text(PYTOM.replace('Z="50.0" Origin', "Origin"))
    with pytest.raises(InputError, match="particle 1: Z of PickPosition is ''"):
        read_annotations(path)
    path.write_text(PYTOM.replace("ZXZ", "ZYZ"))
    with pytest.raises(InputError, match="order ZYZ, not ZXZ"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x;y;z\n1,5;2,25;-3\n", [1.5, 2.25, -3]),
        ("1,5;2,5;3,5\n", [1.5, 2.5, 3.5]),
        ("x\ty\tz\n1,5\t2\t3e0\n", [1.5, 2, 3]),
        ("center_x,center_y,center_z\n1,2,3\n", [1, 2, 3]),
        ("centre_x_nm;centre_y_nm;centre_z_nm\n1,5;2;3\n", [1.5, 2, 3]),
        ("x_nm,y_nm,z_nm,class\n1,2,3,a\n", [1, 2, 3]),
        ("X [nm],Y [nm],Z [nm]\n1,2,3\n", [1, 2, 3]),
        ("x (px),y (px),z (px)\n1,2,3\n", [1, 2, 3]),
    ],
)
def test_c_dialects_of_tables(tmp_path: Path, text: str, expected: list[float]) -> None:
    (tmp_path / "a.csv").write_text(text)
    np.testing.assert_allclose(read_annotations(tmp_path / "a.csv", voxel_size_angstrom=10.0).positions_vox, [expected])


@pytest.mark.parametrize(
    ("name", "options", "first", "score"),
    [
        ("portal_orientedpoint.ndjson", {}, [89.9, 197.4, 71.9], None),
        ("crowded_boxes.cbox", {}, [23.0, 32.75, 50.0], 0.81),
        ("napari_points.csv", {}, [40.25, 30.5, 20.0], None),
        ("m_species.star", {"voxel_size_angstrom": 10.0}, [414.2123, 327.2708, 77.7879], None),
        ("pytom_particle_list.xml", {}, [101, 200, 50], 0.31),
    ],
)
def test_c_files_of_the_field(
    shared_data: Path, name: str, options: dict, first: list[float], score: float | None
) -> None:
    found = read_annotations(shared_data / "cases" / name, **options)
    np.testing.assert_allclose(found.positions_vox[0], first)
    assert (None if found.scores is None else found.scores[0]) == score


def test_c_the_docs_list_the_formats_as_the_registry_has_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")][: len(FORMATS)]
    columns = ("labels", "rotations", "scores", "cluster_sizes", "class_names", "tomograms", "extra")
    expected = []
    for name, entry in FORMATS.items():
        kept = ", ".join(column.replace("_", " ") for column in columns if column in entry.keeps)
        kept = kept or ("positions alone" if entry.write else "")
        writes = "yes" if entry.write else "no"
        expected.append(f"| `{name}` | {entry.title} | {' '.join(entry.suffixes)} | yes | {writes} | {kept} |")
    assert rows == expected
