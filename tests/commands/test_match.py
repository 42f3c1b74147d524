"""`robpicker match` from the command line: picks, maps, going on, and one line for bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.match import main
from robpicker_jax.rotations import covering
from robpicker_jax.volumes import read_volume, write_mrc
from tests.matching.cases import density, planted

pytestmark = pytest.mark.fast

VOXELS = [(9, 9, 9), (10, 9, 24)]
ROTATIONS = covering(60.0)[[7, 40]]
COMMON = [
    "--angle-step",
    "60",
    "--diameter",
    "100",
    "--contrast",
    "bright",
    "--no-centre",
    "--tilts",
    "none",
    "--cutoff",
    "none",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("match")
    write_mrc(folder / "blob.mrc", density(17), 10.0)
    write_mrc(folder / "a.mrc", planted((20, 19, 33), VOXELS, ROTATIONS, noise=0.1), 10.0)
    return folder


def arguments_of(files: Path, out: str) -> list[str]:
    arguments = ["--template", str(files / "blob.mrc"), "--tomo", str(files / "a.mrc"), "--out", str(files / out)]
    return [*arguments, *COMMON, "--max-picks", "2"]


def match(files: Path, out: str, *further: str) -> int:
    return call(main, [*arguments_of(files, out), *further])


@pytest.mark.parametrize("search", ["exact", "cascade"])
def test_picks_and_maps_are_written_and_kept(files: Path, search: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert match(files, search, "--search", search, "--maps") == 0
    assert "memory: at most" in capsys.readouterr().out
    out = files / search
    picks = read_annotations(out / "a.star", voxel_size_angstrom=10.0)
    picks = picks.select(np.argsort(picks.positions_vox[:, 0]))
    np.testing.assert_allclose(picks.positions_vox, [voxel[::-1] for voxel in VOXELS], atol=0.4)
    assert rotation_angle_deg(picks.rotations, ROTATIONS).max() < 12
    assert len(read_annotations(out / "a.xml")) == len(read_annotations(out / "a.csv")) == 2
    scores, angles = (read_volume(out / f"a_blob_{kind}.mrc") for kind in ("score", "angle"))
    assert scores.voxel_size_angstrom == pytest.approx(10.0)
    assert np.unravel_index(scores.data.argmax(), scores.data.shape) in VOXELS
    assert {angles.data[voxel] for voxel in VOXELS} == {7, 40}
    assert len((out / "a_blob_angles.csv").read_text().splitlines()) == len(covering(60.0)) + 1
    assert not (out / ".matching").exists()
    before = (out / "a.star").stat().st_mtime_ns
    assert match(files, search, "--search", search, "--maps") == 0
    assert "finished already" in capsys.readouterr().out
    assert (out / "a.star").stat().st_mtime_ns == before


def test_picks_of_other_settings_are_replaced_on_request_alone(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert match(files, "again", "--search", "exact") == 0
    assert match(files, "again", "--search", "exact", "--no-refine") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert match(files, "again", "--search", "exact", "--no-refine", "--overwrite") == 0


def test_e1_match_replaces_nothing_unasked_and_goes_on_with_its_own(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = files / "kept"
    out.mkdir()
    (out / "a_blob_score.mrc").write_bytes(b"hours of work")
    assert match(files, "kept", "--search", "exact", "--maps") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in out.glob("[!.]*")] == ["a_blob_score.mrc"]
    (out / "a_blob_score.mrc").unlink()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("robpicker_jax.commands.match._write_maps", killed)
        with pytest.raises(KeyboardInterrupt):
            main([*arguments_of(files, "kept"), "--search", "exact", "--maps"])
    assert (out / "a.star").is_file()
    assert match(files, "kept", "--search", "exact", "--maps") == 0
    capsys.readouterr()
    shutil.copy(files / "a.mrc", files / "a_blob_score.mrc")  # a tomogram that is called like the map of another
    tomograms = ["--tomo", str(files / "a.mrc"), str(files / "a_blob_score.mrc")]
    assert match(files, ".", "--search", "exact", "--maps", "--overwrite", *tomograms) == 2
    assert "is an input" in capsys.readouterr().err


def test_a_precision_is_measured_on_a_clean_tomogram(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = Particles([voxel[::-1] for voxel in VOXELS], [1, 1], class_names=["blob", "blob"])
    write_annotations(files / "truth.csv", truth)
    clean = ["--clean", f"{files / 'a.mrc'}={files / 'truth.csv'}"]
    assert match(files, "precise", "--search", "exact", "--no-refine", *clean, "--precision", "0.15") == 0
    said = capsys.readouterr().out
    assert "precision 1.00" in said
    assert "2 blob" in said.splitlines()[-1]
    assert match(files, "sure", "--search", "exact", "--no-refine", *clean, "--precision", "0.99") == 2
    assert "not shown" in capsys.readouterr().err


def test_tomograms_of_another_voxel_size_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The template is made for one voxel size: at another one it would be searched for at the wrong scale."""
    volume = read_volume(files / "a.mrc").data
    write_mrc(files / "coarse.mrc", volume, 13.0)
    write_mrc(files / "nearly.mrc", volume, 10.05)
    write_annotations(files / "two.csv", Particles([voxel[::-1] for voxel in VOXELS], [1, 1]))
    clean = ["--clean", f"{files / 'coarse.mrc'}={files / 'two.csv'}", "--precision", "0.5"]
    for further, said in (
        (["--tomo", str(files / "a.mrc"), str(files / "coarse.mrc")], "13 Å"),
        (["--voxel-size", "12"], "--voxel-size says 12 Å"),
        (clean, "13 Å"),
    ):
        assert match(files, "sizes", *further) == 2
        assert said in capsys.readouterr().err
    both = ["--tomo", str(files / "a.mrc"), str(files / "nearly.mrc")]
    assert match(files, "sizes", *both, "--search", "exact", "--no-refine") == 0


def test_another_clean_list_is_another_setting(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positions = [voxel[::-1] for voxel in VOXELS]
    arguments = ["--search", "exact", "--no-refine", "--precision", "0.15"]
    arguments += ["--clean", f"{files / 'a.mrc'}={files / 'changing.csv'}"]
    write_annotations(files / "changing.csv", Particles(positions, [1, 1]))
    assert match(files, "changing", *arguments) == 0
    assert match(files, "changing", *arguments) == 0
    assert "finished already" in capsys.readouterr().out
    write_annotations(files / "changing.csv", Particles(positions[:1], [1]))
    assert match(files, "changing", *arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("--symmetry", "Z9"), "unknown symmetry"),
        (("--diameter", "1,2"), "2 values for 1 templates"),
        (("--tilts", "60,-60"), "tilt range"),
        (("--tilts", "x"), "tilt range"),
        (("--search", "quick"), "unknown search"),
        (("--cutoff", "gaussian"), "--search exact"),
        (("--defocus", "3"), "--tilt-step"),
        (("--precision", "0.9"), "--clean"),
        (("--mask", "shape", "--search", "cascade"), "does not turn"),
        (("--angle-step", "0"), "--angle-step: an angular step"),
        (("--diameter", "-100"), "--diameter"),
        (("--distance", "0"), "--distance"),
        (("--max-picks", "-1"), "--max-picks"),
        (("--voxel-size", "-10"), "--voxel-size"),
        (("--soft", "-1"), "--soft"),
        (("--low-pass", "-20"), "--low-pass"),
        (("--tilt-step", "0"), "--tilt-step"),
        (("--dose-per-tilt", "-3"), "--dose-per-tilt"),
        (("--false-positives", "0"), "--false-positives"),
        (("--workers", "0"), "--workers"),
        (("--voltage", "0"), "acceleration voltage"),
        (("--amplitude-contrast", "2"), "amplitude contrast"),
        (("--diameter", "250"), "no room for blob"),
        (("--noise-correction",), "--search exact"),
        (("--clean", "a.mrc", "--precision", "0.9"), "TOMO=LIST"),
        (("--clean", "{files}={files}/blob.mrc", "--precision", "0.9"), "tomograms at"),
        (("--clean", "{files}/a.mrc={files}/none.csv", "--precision", "0.9"), "no list"),
        (("--clean", "{files}/a.mrc={files}/blob.mrc", "--precision", "1"), "--precision"),
        (("--memory-limit-gib", "1e-6"), "GiB may be used"),
        (("--format", "none"), "unknown format"),
    ],
)
def test_bad_input_is_one_line(
    files: Path, further: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert match(files, "bad", *(text.format(files=files) for text in further)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
