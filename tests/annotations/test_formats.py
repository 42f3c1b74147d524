"""Every annotation format on real files, against independent readings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.system.errors import InputError
from tests.annotations.star_text import relion_rotation, star_rows, xyz

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def formats(shared_data: Path) -> Path:
    return shared_data / "formats"


@pytest.mark.parametrize(("name", "count"), [("atpase", 933), ("hsp60", 27), ("mitoribosome", 228)])
def test_chlamydomonas_star(shared_data: Path, name: str, count: int) -> None:
    path = shared_data / "annotations" / f"chlamy_{name}.star"
    rows = star_rows(path, "")
    particles = read_annotations(path, class_labels={name: 4}, binning=4)
    assert len(particles) == len(rows) == count
    for i in (0, -1):
        np.testing.assert_allclose(particles.positions_vox[i], xyz(rows[i], "rlnCoordinate?") / 4)
        angles = [float(rows[i][f"rlnAngle{a}"]) for a in ("Rot", "Tilt", "Psi")]
        np.testing.assert_allclose(particles.rotations[i], relion_rotation(*angles), atol=1e-9)
        assert particles.tomograms[i] == rows[i]["rlnTomoName"]
    assert set(particles.labels) == {4}
    assert particles.extra["rlnTomoMdocName"][0] == rows[0]["rlnTomoMdocName"]
    assert not read_annotations(path).labels.any()


def test_relion_5_with_tomograms_table(formats: Path) -> None:
    path = formats / "R5_tutorial_run_data.star"
    rows = star_rows(path, "particles")
    table = {row["rlnTomoName"]: row for row in star_rows(formats / "R5_tutorial_run_tomograms.star", "global")}
    with pytest.raises(InputError, match="RELION's tomograms table"):
        read_annotations(path)
    particles = read_annotations(path, tomograms=formats / "R5_tutorial_run_tomograms.star")
    assert len(particles) == len(rows) == 9053
    for i in (0, 4321, -1):
        tomogram = table[rows[i]["rlnTomoName"]]
        pixel = float(tomogram["rlnTomoTiltSeriesPixelSize"])
        sub = relion_rotation(*(float(rows[i][f"rlnTomoSubtomogram{a}"]) for a in ("Rot", "Tilt", "Psi")))
        own = relion_rotation(*(float(rows[i][f"rlnAngle{a}"]) for a in ("Rot", "Tilt", "Psi")))
        expected = xyz(rows[i], "rlnCenteredCoordinate?Angst") - sub @ xyz(rows[i], "rlnOrigin?Angst")
        expected = expected / pixel + xyz(tomogram, "rlnTomoSize?") / 2
        expected = expected / float(tomogram["rlnTomoTomogramBinning"])
        np.testing.assert_allclose(particles.positions_vox[i], expected, rtol=1e-9)
        np.testing.assert_allclose(particles.rotations[i], sub @ own, atol=1e-9)
    size = np.array([4000, 4000, 2000]) / 7.407407
    assert (particles.positions_vox > 0).all()
    assert (particles.positions_vox < size).all()
    other = read_annotations(path, tomograms=formats / "R5_tutorial_run_tomograms.star", centre="N/2-1")
    np.testing.assert_allclose(particles.positions_vox - other.positions_vox, 1 / 7.407407, rtol=1e-6)
    table = formats / "R5_tutorial_run_tomograms.star"
    with pytest.raises(InputError, match="voxel size of 5 is given, but the table says 10"):
        read_annotations(path, tomograms=table, voxel_size_angstrom=5.0)
    finer = read_annotations(path, tomograms=table, voxel_size_angstrom=5.0, binning=5 / 1.35)
    np.testing.assert_allclose(finer.positions_vox, particles.positions_vox * 1.35 * 7.407407 / 5, rtol=1e-6)
    with pytest.raises(InputError, match="no tomogram 'TS_01' in it"):
        read_annotations(path, tomograms=formats / "ptm_relion5_tomograms.star")
    with pytest.raises(InputError, match="unknown centre rule"):
        read_annotations(path, tomograms=formats / "R5_tutorial_run_tomograms.star", centre="middle")


def test_optimisation_set(formats: Path, tmp_path: Path) -> None:
    (tmp_path / "Extract" / "job1").mkdir(parents=True)
    for name in ("R5_tutorial_run_data.star", "R5_tutorial_run_tomograms.star"):
        (tmp_path / "Extract" / name).write_bytes((formats / name).read_bytes())
    names = "_rlnTomoParticlesFile Extract/R5_tutorial_run_data.star\n"
    names += "_rlnTomoTomogramsFile Extract/R5_tutorial_run_tomograms.star\n"
    path = tmp_path / "Extract" / "job1" / "optimisation_set.star"
    path.write_text("\ndata_\n\n" + names)
    assert len(read_annotations(path)) == 9053
    path.write_text("\ndata_\n\n_rlnTomoParticlesFile gone.star\n")
    with pytest.raises(InputError, match=r"the particles file gone\.star does not exist"):
        read_annotations(path)


def test_relion_4_subtracts_origins_and_agrees_with_stopgap(formats: Path) -> None:
    rows = star_rows(formats / "relion_4_star.star", "particles")
    particles = read_annotations(formats / "relion_4_star.star")
    assert len(particles) == len(rows) == 6
    for row, position in zip(rows, particles.positions_vox, strict=True):  # the optics table says 0.5 Å a pixel
        np.testing.assert_allclose(position, xyz(row, "rlnCoordinate?") - xyz(row, "rlnOrigin?Angst") / 0.5)
    assert particles.tomograms.tolist() == [row["rlnTomoName"] for row in rows]
    binned = read_annotations(formats / "relion_4_star.star", voxel_size_angstrom=2.0)
    np.testing.assert_allclose(binned.positions_vox, particles.positions_vox / 4)
    stopgap = read_annotations(formats / "stopgap_star.star")
    assert format_of(formats / "stopgap_star.star", None).name == "stopgap"
    rows = star_rows(formats / "stopgap_star.star", "stopgap_motivelist")
    assert len(stopgap) == len(rows) == 6
    for row, position in zip(rows, stopgap.positions_vox, strict=True):
        expected = [float(row[f"orig_{a}"]) + float(row[f"{a}_shift"]) for a in "xyz"]
        np.testing.assert_allclose(position, expected)
    assert stopgap.scores[0] == 0.1816
    assert stopgap.tomograms.tolist() == ["1", "1", "2", "2", "2", "3"]


def test_copick_and_relion_state_the_same_orientations(formats: Path) -> None:
    """Both files are fixtures of one project and share angles; copick writes them out as matrices."""
    copick = read_annotations(formats / "copick.json", voxel_size_angstrom=10.0)
    points = json.loads((formats / "copick.json").read_text())["points"]
    assert len(copick) == len(points) == 4
    np.testing.assert_allclose(copick.positions_vox[0], [4.0, 2.0, 3.0])
    np.testing.assert_allclose(copick.positions_vox[-1], [points[-1]["location"][a] / 10 for a in "xyz"])
    relion = read_annotations(formats / "relion_4_star.star")
    for ours, row in zip(copick.rotations, (0, 1, 3, 2), strict=True):
        np.testing.assert_allclose(ours, relion.rotations[row], atol=1e-6)
    assert copick.class_names.tolist() == ["ribosome"] * 4
    with pytest.raises(InputError, match="give the voxel size"):
        read_annotations(formats / "copick.json")


def test_relion_3_and_31(formats: Path) -> None:
    rows = star_rows(formats / "relion_3_star.star", "")
    particles = read_annotations(formats / "relion_3_star.star", fmt="star")
    assert len(particles) == len(rows) == 6
    for i in (0, -1):
        np.testing.assert_allclose(
            particles.positions_vox[i], xyz(rows[i], "rlnCoordinate?") - xyz(rows[i], "rlnOrigin?")
        )
    path = formats / "relion_3.1_optics2.star"
    with pytest.raises(InputError, match=r"pixel size of 2.446 is given, but rlnPixelSize says 3.446"):
        read_annotations(path, pixel_size_angstrom=2.446, voxel_size_angstrom=12.23)
    particles = read_annotations(path, voxel_size_angstrom=12.23)
    rows = star_rows(path, "particles")
    assert len(particles) == len(rows) == 3
    for i in (0, -1):
        pixel = float(rows[i]["rlnPixelSize"])
        expected = (xyz(rows[i], "rlnCoordinate?") * pixel - xyz(rows[i], "rlnOrigin?Angst")) / 12.23
        np.testing.assert_allclose(particles.positions_vox[i], expected, rtol=1e-9)


def test_blocks_and_what_is_no_particle_list(formats: Path) -> None:
    path = formats / "rln3.1_data_style.star"
    with pytest.raises(InputError, match="block_2, block_3"):
        read_annotations(path)
    particles = read_annotations(path, block="block_3")
    assert len(particles) == 2
    assert particles.positions_vox[-1].tolist() == [685.0, 1268.0, -51.5227]
    assert particles.tomograms.tolist() == ["0001_sum.mrc", "0002_sum.mrc"]
    for name, message in [
        ("empty_loop.star", "holds no particles"),
        ("basic_double_quote.star", "no particles in it"),
        ("R5_tutorial_run_tomograms.star", "a table of tomograms, not of particles"),
        ("ptm_relion5_tomograms.star", "a table of tomograms, not of particles"),
        ("warptools_tomograms.star", "a table of tomograms, not of particles"),
    ]:
        with pytest.raises(InputError, match=message):
            read_annotations(formats / name)
    with pytest.raises(InputError, match=r"'absent'.*'block_1', 'block_2', 'block_3'"):
        read_annotations(path, block="absent")


def test_warp_counts_pixels_of_the_exported_images(formats: Path) -> None:
    path = formats / "warptools_particles.star"
    rows = star_rows(path, "particles")
    particles = read_annotations(path)
    assert format_of(path, None).name == "warp"
    assert len(particles) == len(rows) == 40
    for i in (0, -1):
        np.testing.assert_allclose(particles.positions_vox[i], xyz(rows[i], "rlnCoordinate?"))
        assert f"{particles.tomograms[i]}.tomostar" == rows[i]["rlnTomoName"]
    tomograms = star_rows(formats / "warptools_tomograms.star", "global")
    binned = read_annotations(path, voxel_size_angstrom=10.0)
    np.testing.assert_allclose(binned.positions_vox, particles.positions_vox * 1.2)  # 12 Å pixels
    size = xyz(tomograms[0], "rlnTomoSize?") * 1.667 / 12
    assert (particles.positions_vox < size).all()
    assert (particles.positions_vox.max(axis=0) > 0.8 * size).all()


def test_dynamo(formats: Path) -> None:
    path = formats / "dynamo2m_example.tbl"
    table = np.loadtxt(path)
    particles = read_annotations(path)
    assert len(particles) == len(table) == 4934
    np.testing.assert_allclose(particles.positions_vox, table[:, 23:26] + table[:, 3:6])
    np.testing.assert_allclose(particles.scores, table[:, 9])
    # Dynamo turns the template's axes clockwise: the inverse of scipy's intrinsic ZXZ of tdrot, tilt, narot reversed.
    expected = Rotation.from_euler("ZXZ", table[:, [8, 7, 6]], degrees=True).inv().as_matrix()
    np.testing.assert_allclose(particles.rotations, expected, atol=1e-9)
    shifted = read_annotations(path, first_voxel=1, binning=2)
    np.testing.assert_allclose(shifted.positions_vox, (particles.positions_vox - 1) / 2)


def test_copick_microtubule_and_csv(formats: Path) -> None:
    path = formats / "copick_CCDC147C_001_microtubule.json"
    points = json.loads(path.read_text())["points"]
    particles = read_annotations(path, class_labels={"microtubule": 2})
    assert len(particles) == len(points)
    for i in (0, -1):
        np.testing.assert_allclose(particles.positions_vox[i], [points[i]["location"][a] / 8.2 for a in "xyz"])
    assert set(particles.tomograms) == {"CCDC147C_001"}
    assert set(particles.labels) == {2}
    for name in ("points.csv", "points_with_header_pipe_delim.csv"):
        assert read_annotations(formats / name).positions_vox.tolist() == [[1, 2, 3], [2, 2, 2], [0, 3, 0]]
    assert read_annotations(formats / "points.csv", axes="zyx").positions_vox[0].tolist() == [3, 2, 1]


def test_shrec_locations(shared_data: Path) -> None:
    path = shared_data / "shrec2019" / "particle_locations_model_9.txt"
    rows = [line.split() for line in path.read_text().splitlines()]
    particles = read_annotations(path, class_labels={"1bxn": 1, "1qvr": 2})
    assert len(particles) == len(rows) == 2540
    for i in (0, -1):
        assert particles.positions_vox[i].tolist() == [int(rows[i][k]) - 1 for k in (3, 2, 1)]
        first, middle, last = (float(angle) for angle in rows[i][4:])
        expected = Rotation.from_euler("zxz", [first, middle, last], degrees=True).as_matrix()
        np.testing.assert_allclose(particles.rotations[i], expected, atol=1e-9)
    assert (particles.positions_vox >= 0).all()
    assert (particles.positions_vox < [512, 512, 200]).all()
    assert np.count_nonzero(particles.labels == 2) == sum(row[0] == "1qvr" for row in rows)


TEXT_CASES = [
    ("a.coords", "1 2 3\n4.5 5 6\n", {}, [[1, 2, 3], [4.5, 5, 6]], [0, 0]),
    ("a.coords", "7\t1\t2\t3\n", {}, [[1, 2, 3]], [7]),
    ("a.coords", "1 2 3\n", {"axes": "xzy"}, [[1, 3, 2]], [0]),
    ("a_objl.txt", "2 30 20 10\n", {}, [[10, 20, 30]], [2]),
    ("a.txt", "2 30 20 10\n", {"fmt": "txt"}, [[10, 20, 30]], [2]),
    ("a.txt", "2 30 20 10\n", {"fmt": "imod_points"}, [[29.5, 19.5, 10]], [0]),
    ("a.txt", "# comment\n3 1 30.5 20.5 10\n", {}, [[30, 20, 10]], [3]),
    ("a.txt", "30 20 10\n", {"half_pixel": False}, [[30, 20, 10]], [0]),
    ("a.csv", "x,y,z\n1,2,3\n", {}, [[1, 2, 3]], [0]),
    ("a.csv", "\ufeffZ;Y;X;Class_Label\n3;2;1;5\n", {}, [[1, 2, 3]], [5]),
    ("a.tsv", "x_vox\ty_vox\tz_vox\tclass\n1\t2\t3\tb\n", {"class_labels": {"b": 2}}, [[1, 2, 3]], [2]),
    ("a.csv", "x_angstrom,y_angstrom,z_angstrom\n10,20,30\n", {"voxel_size_angstrom": 10}, [[1, 2, 3]], [0]),
    ("a.csv", "x,y,z\n10,20,30\n", {"voxel_size_angstrom": 10, "unit": "angstrom"}, [[1, 2, 3]], [0]),
    (
        "a.csv",
        "id,experiment,particle_type,x,y,z\n0,TS_5_4,ribosome,10,20,30\n",
        {"voxel_size_angstrom": 10, "class_labels": {"ribosome": 5}},
        [[1, 2, 3]],
        [5],
    ),
    (
        "a.bild",
        ".comment x\n.color 0.2 0.133 0.533\n.sphere 10 20 30 5\n",
        {"voxel_size_angstrom": 10},
        [[1, 2, 3]],
        [2],
    ),
    ("a.bild", ".dot 10 20 30\n", {"voxel_size_angstrom": 5}, [[2, 4, 6]], [0]),
    (
        "a.cmm",
        '<marker_set name="s"><marker id="1" x="10" y="20" z="30" r="1" g="1" b="1" radius="5"/></marker_set>',
        {"voxel_size_angstrom": 10, "origin_angstrom": (10.0, 0.0, 0.0)},
        [[0, 2, 3]],
        [0],
    ),
]


@pytest.mark.parametrize(("name", "text", "options", "positions", "labels"), TEXT_CASES)
def test_text_formats(tmp_path: Path, name: str, text: str, options: dict, positions: list, labels: list) -> None:
    path = tmp_path / name
    path.write_text(text)
    particles = read_annotations(path, **options)
    np.testing.assert_allclose(particles.positions_vox, positions)
    assert particles.labels.tolist() == labels


REFUSED = [
    ("a.coords", "1 2\n", {}, "2 columns, not three"),
    ("a.coords", "1 2 3\n4 5\n", {}, "line 2 has 2 columns, not 3"),
    ("a.coords", "1 2 3\n4 5 six\n", {}, "line 2: z is 'six'"),
    ("a.coords", "", {}, "holds no particles"),
    ("a.coords", "1 2 3\n", {"axes": "xyx"}, "not a permutation"),
    ("a.txt", "2 30 20 10\n", {}, "do not tell the format; name the format"),
    ("a.csv", "x,y\n1,2\n", {}, "no columns x, y, z in the header"),
    ("a.csv", "1,2,3,4\n", {}, "4 columns without a header"),
    ("a.csv", "", {}, "the file is empty"),
    ("a.csv", 'x,y,z\n1,2,"3\n', {}, "not readable as a table"),
    ("a.csv", "x,y,z,particle_type\n1,2,3,a\n", {}, "coordinates are in Å; give the voxel size"),
    ("a.csv", "x,y,z\n1,2,3\n", {"unit": "nm"}, "unit is 'nm'"),
    ("a.star", "", {}, "the file is empty"),
    ("a.star", "hello\n", {}, "no data block"),
    ("a.star", "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 a\n", {}, "row 1: rlnCoordinateZ"),
    (
        "a.star",
        "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2\n",
        {},
        "line 6: 2 cells in",
    ),
    (
        "a.star",
        "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 3\n",
        {"binning": 0},
        "binning is 0",
    ),
    ("a.tbl", "1 2 3\n", {}, "3 columns: not a Dynamo table"),
    ("a.json", "{", {}, "not readable as JSON"),
    ("a.json", "[]", {}, "not copick picks"),
    ("a.json", '{"points": [{"location": {"x": 1, "y": 2}}], "voxel_spacing": 1}', {}, "point 1: no location"),
    (
        "a.json",
        '{"points": [{"location": {"x": 1, "y": 2, "z": 3}, "transformation_": [[2]]}], "voxel_spacing": 1}',
        {},
        "point 1: transformation_ is not a 4 x 4 matrix",
    ),
    ("a.mod", "hello", {}, "not an IMOD binary model"),
    ("a.mod", "IMODV1.2" + "\0" * 300, {}, "truncated or damaged IMOD model"),
    ("a.em", "hello", {}, "not an EM file"),
    ("a.em", "\x06\0\0\x05" + "\0" * 508, {}, "not a motive list"),
    ("a.cmm", "<a/>", {}, "no marker set"),
    ("a.bild", "hello\n", {"voxel_size_angstrom": 1}, "not a BILD file"),
    ("a.bild", ".sphere 1 2\n", {"voxel_size_angstrom": 1}, "line 1: .sphere without x y z"),
    ("a.bild", ".sphere 1 2 3 4\n", {}, "give the voxel size"),
]


@pytest.mark.parametrize(("name", "text", "options", "message"), REFUSED)
def test_refusals_name_file_and_reason(tmp_path: Path, name: str, text: str, options: dict, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_annotations(path, **options)
    assert message in str(caught.value)
    assert name in str(caught.value) or "axes" in options or "unit" in options or "binning" in options


def test_writers_that_need_to_know_more_say_so(tmp_path: Path) -> None:
    particles = Particles([[1, 2, 3], [4, 5, 6]], [1, 2])
    for name, fmt, options, message in [
        ("a.json", None, {}, "give the voxel size"),
        ("a.json", None, {"voxel_size_angstrom": 10}, "one object of one run in a file, and there are 2"),
        ("a.csv", "czii", {}, "give the voxel size"),
        ("a.cmm", None, {}, "give the voxel size"),
        ("a.bild", None, {}, "give the voxel size"),
        ("a.star", "relion5", {}, "give the voxel size"),
        ("a.star", "relion5", {"voxel_size_angstrom": 10}, "give RELION's tomograms table or the volume's size"),
        ("a.txt", None, {}, "does not tell the format"),
    ]:
        with pytest.raises(InputError, match=message):
            write_annotations(tmp_path / name, particles, fmt=fmt, **options)
    assert not list(tmp_path.iterdir())


def test_copick_project_folder(tmp_path: Path) -> None:
    particles = Particles(
        np.arange(12.0).reshape(4, 3),
        [1, 2, 1, 1],
        class_names=["a", "b_c", "a", "a"],
        tomograms=["t1", "t1", "t2", "t2"],
    )
    write_annotations(tmp_path / "project", particles, fmt="copick", voxel_size_angstrom=10.0)
    files = sorted(p.relative_to(tmp_path / "project").as_posix() for p in tmp_path.rglob("*.json"))
    assert files == [
        "ExperimentRuns/t1/Picks/robpicker_0_a.json",
        "ExperimentRuns/t1/Picks/robpicker_0_b-c.json",
        "ExperimentRuns/t2/Picks/robpicker_0_a.json",
    ]
    back = read_annotations(tmp_path / "project", class_labels={"a": 1, "b_c": 2}, voxel_size_angstrom=10.0)
    assert len(back) == 4
    assert sorted(back.labels) == [1, 1, 1, 2]
    assert set(back.tomograms) == {"t1", "t2"}


def test_star_is_reproducible_and_starts_without_a_date(tmp_path: Path) -> None:
    particles = Particles([[1, 2, 3]], [1], scores=[0.5], tomograms=["TS_01"])
    for name in ("a.star", "b.star"):
        write_annotations(tmp_path / name, particles, voxel_size_angstrom=10.0)
    content = (tmp_path / "a.star").read_bytes()
    assert content == (tmp_path / "b.star").read_bytes()
    assert content.startswith(b"data_optics")
    rows = star_rows(tmp_path / "a.star", "particles")
    assert rows[0]["rlnTomoName"] == "TS_01"
    assert float(rows[0]["rlnAutopickFigureOfMerit"]) == 0.5
