"""The convert command: what is lost is said first, nothing is guessed in silence, nothing is overwritten unasked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.conversion import fate, parse_class_labels, parse_options
from robpicker_jax.annotations.geometry import random_rotations, rotation_angle_deg
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.convert import main
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.annotations.strategies import WRITABLE

VOXEL = 10.0
SHAPE = (50, 60, 70)


@pytest.fixture
def particles() -> Particles:
    rng = np.random.default_rng(0)
    labels = np.array([1, 2, 1, 2, 1, 2])
    return Particles(
        rng.random((6, 3)) * [69, 59, 49],
        labels,
        rotations=random_rotations(6, rng),
        scores=np.linspace(0, 1, 6),
        cluster_sizes=np.arange(6) + 10,
        class_names=np.array(["", "ribosome", "proteasome"])[labels],
        tomograms=["a", "a", "b", "b", "b", "a"],
        extra={"lamella": np.arange(6)},
    )


@pytest.fixture
def source(particles: Particles, tmp_path: Path) -> Path:
    write_annotations(tmp_path / "in.xml", particles)
    return tmp_path / "in.xml"


def convert(*arguments: object) -> int:
    return call(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("fmt", WRITABLE)
def test_any_format_out_and_back(fmt: str, particles: Particles, tmp_path: Path) -> None:
    one = particles.with_(tomograms=["a"] * 6).select(particles.labels == 1)
    write_annotations(tmp_path / "in.xml", one)
    context = ["--voxel-size", VOXEL, "--tomogram-shape", "70,60,50", "--class-labels", "ribosome=1,proteasome=2"]
    target = tmp_path / "project" if fmt == "copick" else tmp_path / f"out{FORMATS[fmt].suffixes[0]}"
    assert convert(tmp_path / "in.xml", target, "--to", fmt, *context) == 0
    assert convert(target, tmp_path / "back.xml", "--from", fmt, *context) == 0
    back = read_annotations(tmp_path / "back.xml")
    assert len(back) == 3
    np.testing.assert_allclose(back.positions_vox, one.positions_vox, atol=1e-4)
    keeps = FORMATS[fmt].keeps
    if "rotations" in keeps:
        assert rotation_angle_deg(back.rotations, one.rotations).max() < 1e-3
    if "scores" in keeps:
        np.testing.assert_allclose(back.scores, one.scores, atol=1e-6)
    if keeps & {"labels", "class_names"}:
        assert back.labels.tolist() == [1, 1, 1]
        assert back.class_names.tolist() == ["ribosome"] * 3


def test_losses_are_said_and_a_dry_run_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, tmp_path / "out.coords", "--select", "a", "--dry-run") == 0
    out = capsys.readouterr().out
    lost = [line for line in out.splitlines() if "LOST" in line]
    for column in ("class labels", "class names", "orientations", "scores", "cluster sizes", "tomogram", "lamella"):
        assert any(column in line for line in lost), column
    assert "positions" in out
    assert not (tmp_path / "out.coords").exists()


@pytest.mark.parametrize("fmt", WRITABLE)
def test_the_table_of_losses_agrees_with_the_registry(fmt: str, particles: Particles) -> None:
    lost = {column.name for column in fate(particles, FORMATS[fmt]) if not column.kept}
    keeps = FORMATS[fmt].keeps
    assert ("orientations" in lost) == ("rotations" not in keeps)
    assert ("class labels" in lost) == (not keeps & {"labels", "class_names"})
    assert ("column lamella" in lost) == ("extra" not in keeps)


def test_existing_files_stay_unless_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.csv"
    target.write_text("mine")
    assert convert(source, target) == 2
    assert target.read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert convert(source, target, "--overwrite") == 0
    assert len(read_annotations(target)) == 6
    assert convert(target, target, "--overwrite", "--select", "b") == 2  # in place: an input is never replaced
    assert "is an input" in capsys.readouterr().err
    assert len(read_annotations(target)) == 6


def test_tomograms_are_not_mixed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(source, tmp_path / "out.cmm", "--voxel-size", VOXEL) == 2
    assert "--split" in capsys.readouterr().err
    assert convert(source, tmp_path / "lists", "--split", "--to", "cmm", "--voxel-size", VOXEL) == 0
    counts = {
        path.name: len(read_annotations(path, voxel_size_angstrom=VOXEL)) for path in (tmp_path / "lists").iterdir()
    }
    assert counts == {"a.cmm": 3, "b.cmm": 3}
    assert convert(source, tmp_path / "lists", "--split") == 2
    assert convert(source, tmp_path / "x.xml", "--select", "c") == 2


def test_names_of_tomograms_cannot_leave_the_folder(particles: Particles, tmp_path: Path) -> None:
    write_annotations(tmp_path / "in.xml", particles.with_(tomograms=["../../evil"] * 6))
    assert convert(tmp_path / "in.xml", tmp_path / "a/b/out", "--split", "--to", "csv") == 0
    assert [path.name for path in (tmp_path / "a/b/out").iterdir()] == ["evil.csv"]


def test_missing_units_are_errors_or_said(
    particles: Particles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = particles.with_(tomograms=None)
    write_annotations(tmp_path / "in.cmm", one, voxel_size_angstrom=VOXEL)
    assert convert(tmp_path / "in.cmm", tmp_path / "out.xml") == 2
    assert "voxel size" in capsys.readouterr().err

    write_annotations(tmp_path / "in.star", one)  # no pixel size in it
    assert convert(tmp_path / "in.star", tmp_path / "out.xml", "--dry-run") == 0
    assert "taken as voxels of the tomogram" in capsys.readouterr().out
    assert convert(tmp_path / "in.star", tmp_path / "out.xml", "--dry-run", "--binning", 2) == 0
    assert "assumed" not in capsys.readouterr().out
    write_annotations(tmp_path / "stated.star", particles, voxel_size_angstrom=VOXEL, binning=4)
    assert convert(tmp_path / "stated.star", tmp_path / "out.xml", "--dry-run", "--voxel-size", VOXEL) == 0
    assert "assumed" not in capsys.readouterr().out

    (tmp_path / "bare.csv").write_text("x,y,z\n100,200,300\n110,120,130\n")
    assert convert(tmp_path / "bare.csv", tmp_path / "bare.xml") == 0
    assert "assumed: coordinates are taken as voxels" in capsys.readouterr().out
    angstrom = ["--from-option", "unit=angstrom", "--voxel-size", VOXEL, "--overwrite"]
    assert convert(tmp_path / "bare.csv", tmp_path / "bare.xml", *angstrom) == 0
    assert "assumed" not in capsys.readouterr().out
    np.testing.assert_allclose(read_annotations(tmp_path / "bare.xml").positions_vox[0], [10, 20, 30])
    (tmp_path / "stated.csv").write_text("x_vox,y_vox,z_vox\n100,200,300\n")
    assert convert(tmp_path / "stated.csv", tmp_path / "s.xml") == 0
    assert "assumed" not in capsys.readouterr().out

    write_annotations(tmp_path / "in.tbl", one)
    assert convert(tmp_path / "in.tbl", tmp_path / "t.xml") == 0
    assert "first voxel is taken to count 0" in capsys.readouterr().out


def test_a_stated_pixel_size_is_no_assumption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "\n".join(
        f"_{name}" for name in ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnImagePixelSize")
    )
    path = tmp_path / "a.star"
    path.write_text(f"data_\n\nloop_\n{header}\n10 20 30 12.0\n11 21 31 12.0\n")
    for options, assumed in ((["--voxel-size", "12"], False), (["--voxel-size", "24"], False), ([], True)):
        assert convert(path, tmp_path / "out.xml", "--from", "warp", "--dry-run", *options) == 0
        assert ("taken as voxels of the tomogram" in capsys.readouterr().out) == assumed


@pytest.mark.parametrize("fmt", ["star", "relion5", "warp"])
def test_columns_that_relion_defines_anew_are_lost(fmt: str, particles: Particles, tmp_path: Path) -> None:
    extra = {
        "rlnOpticsGroup": np.full(6, 7),
        "rlnOriginX": np.ones(6),
        "rlnImageName": np.array(["a"] * 6),
        "a-b": np.ones(6),
    }
    richer = particles.with_(extra=extra)
    kept = {
        c.name.removeprefix("column ") for c in fate(richer, FORMATS[fmt]) if c.kept and c.name.startswith("column")
    }
    path = tmp_path / "a.star"
    write_annotations(path, richer, fmt=fmt, voxel_size_angstrom=VOXEL, shape_zyx=(64, 64, 64))
    back = read_annotations(path, fmt=fmt, voxel_size_angstrom=VOXEL, shape_zyx=(64, 64, 64))
    survived = {name for name in extra if name in back.extra and np.array_equal(back.extra[name], extra[name])}
    assert kept == survived == {"rlnImageName"}


@pytest.mark.parametrize(
    ("fmt", "group", "restated"),
    [
        ("warp", 1, {"rlnPixelSize": "rlnPixelSize", "rlnMicrographName": "rlnMicrographName"}),
        ("star", 1, {"rlnPixelSize": "rlnTomoTiltSeriesPixelSize", "rlnOpticsGroup": "rlnOpticsGroup"}),
        ("relion5", 2, {"rlnPixelSize": "rlnTomoTiltSeriesPixelSize"}),
    ],
)
def test_what_the_new_list_states_itself_is_not_lost(
    fmt: str,
    group: int,
    restated: dict[str, str],
    particles: Particles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra = {
        "rlnPixelSize": np.full(6, 4.0),
        "rlnDetectorPixelSize": np.full(6, 5.0),
        "rlnOpticsGroup": np.full(6, group),
        "rlnMicrographName": np.array(["elsewhere.mrc"] * 6),
    }
    richer = particles.with_(extra=extra)
    columns = {c.name.removeprefix("column "): c for c in fate(richer, FORMATS[fmt], VOXEL)}
    assert {name for name in extra if columns[name].kept} == {name for name in extra if columns[name].anew}
    assert {name for name in extra if columns[name].kept} == set(restated)
    write_annotations(tmp_path / "a.star", richer, fmt=fmt, voxel_size_angstrom=VOXEL, shape_zyx=SHAPE)
    held = {line.split()[0] for line in (tmp_path / "a.star").read_text().splitlines() if line.startswith("_rln")}
    assert {f"_{name}" for name in restated.values()} <= held
    if fmt != "relion5":  # without a voxel size nothing speaks of pixels
        assert not {c.name for c in fate(richer, FORMATS[fmt]) if c.anew and "PixelSize" in c.name}

    write_annotations(tmp_path / "in.star", particles, fmt="warp", voxel_size_angstrom=VOXEL)
    size = ",".join(map(str, SHAPE[::-1]))
    flags = ["--to", fmt, "--voxel-size", VOXEL, "--tomogram-shape", size, "--dry-run"]
    assert convert(tmp_path / "in.star", tmp_path / "out.star", *flags) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "column rlnPixelSize" in line]
    assert "LOST" not in line
    assert "written anew" in line


def test_binning_axes_and_centre(particles: Particles, tmp_path: Path) -> None:
    (tmp_path / "a.coords").write_text("30 20 10\n33 22 11\n")
    assert convert(tmp_path / "a.coords", tmp_path / "a.xml", "--from-option", "axes=zyx") == 0
    assert read_annotations(tmp_path / "a.xml").positions_vox[0].tolist() == [10, 20, 30]

    write_annotations(tmp_path / "in.xml", particles)
    assert convert(tmp_path / "in.xml", tmp_path / "o.star", "--to-binning", 4, "--voxel-size", VOXEL) == 0
    text = (tmp_path / "o.star").read_text()
    assert f"{particles.positions_vox[0, 0] * 4:.3f}"[:-1] in text
    assert convert(tmp_path / "o.star", tmp_path / "b.xml", "--voxel-size", VOXEL) == 0
    np.testing.assert_allclose(read_annotations(tmp_path / "b.xml").positions_vox, particles.positions_vox, atol=1e-4)

    write_mrc(tmp_path / "volume.mrc", np.zeros(SHAPE, np.float32), VOXEL)
    assert (
        convert(tmp_path / "in.xml", tmp_path / "r5.star", "--to", "relion5", "--volume", tmp_path / "volume.mrc") == 0
    )
    centred = (particles.positions_vox[0] - np.array([35, 30, 25])) * VOXEL
    assert f"{centred[0]:.2f}"[:-1] in (tmp_path / "r5.star").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.xml", "out.csv"],
        ["in.xml", "out.unknown"],
        ["in.xml", "out.csv", "--from", "nothing"],
        ["in.xml", "out.csv", "--from-option", "axes"],
        ["in.xml", "out.csv", "--from-option", "colour=red"],
        ["in.xml", "out.csv", "--class-labels", "a=1,a=2"],
        ["in.xml", "out.csv", "--class-labels", "a=x"],
        ["in.xml", "out.csv", "--tomogram-shape", "1,2"],
        ["in.xml", "out.csv", "--voxel-size", "-1"],
        ["in.xml", "out.csv", "--binning", "2"],
        ["in.xml", "out.csv", "--tomogram-name", "c"],
        ["in.xml"],
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(source.parent)
    assert convert(*arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not Path("out.csv").exists()


def test_parsers() -> None:
    assert parse_class_labels("a,b") == {"a": 1, "b": 2}
    assert parse_class_labels("a=2, b=1") == {"a": 2, "b": 1}
    assert parse_options(["half-pixel=false", "axes=zyx"], "--x") == {"half_pixel": False, "axes": "zyx"}
    for wrong in ("", "a,,b", "a=0", "a=1,b=1"):
        with pytest.raises(InputError):
            parse_class_labels(wrong)
