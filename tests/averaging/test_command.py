"""`average` end to end on a simulated data set, and its masks and lists as shape labels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import read_annotations
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.commands import average, simulate, targets
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Species
from robpicker_jax.molecules import species_mask
from robpicker_jax.volumes import read_volume

VOXEL = 20.0
CONFIG = {
    "data": {
        "species": [
            {"name": "ribosome", "phantom": "ribosome", "radius_vox": 5, "copies": 10},
            {"name": "proteasome", "phantom": "proteasome", "radius_vox": 4, "copies": 14},
        ],
    },
    "simulation": {
        "shape_zyx": [44, 100, 100],
        "voxel_size_angstrom": VOXEL,
        "train": 1,
        "meta": 1,
        "val": 0,
        "test": 1,
        "snr": 0.3,
        "tilt_step_deg": 5.0,
    },
    "label_noise": {"preset": "none"},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "two.yaml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "data"
    assert call(simulate.main, ["--config", str(config), "--out", str(folder)]) == 0
    return folder


def command(config: Path, data: Path, out: Path, *more: str) -> list[str]:
    folders = [str(data / split) for split in ("train", "meta")]
    lists = [str(path) for folder in folders for path in sorted(Path(folder).glob("*_truth_objl.xml"))]
    lists += [str(path) for path in sorted((data / "meta").glob("*_objl.xml"))]
    arguments = ["--config", str(config), "--tomo", *folders, "--picks", *lists, "--out", str(out)]
    return [*arguments, "--defocus", "3", "--phase-flipped", "--iterations", "0", *more]


@pytest.fixture(scope="module")
def averaged(config: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("averaged") / "averages"
    assert call(average.main, command(config, data, out, "--format", "star", "--format", "dynamo")) == 0
    return out


def centred(mask: np.ndarray, edge: int) -> np.ndarray:
    """A cubic mask in a box of another size, voxel size // 2 on edge // 2."""
    box = np.zeros((edge,) * 3, bool)
    at = np.argwhere(mask) - mask.shape[0] // 2 + edge // 2
    box[tuple(at.T)] = True
    return box


@pytest.mark.parametrize("name", ["ribosome", "proteasome"])
def test_mask_of_true_poses_is_the_true_shape(averaged: Path, name: str) -> None:
    mask = read_volume(averaged / name / "mask.mrc")
    assert mask.voxel_size_angstrom == pytest.approx(VOXEL)
    found = mask.data > 0
    right = centred(species_mask(Species(name, 4, phantom=name), VOXEL), found.shape[0])
    assert (found & right).sum() / (found | right).sum() >= 0.8


def test_files_agree_with_each_other(averaged: Path) -> None:
    folder = averaged / "ribosome"
    summary = json.loads((averaged / "average.json").read_text())["classes"][0]
    assert summary == json.loads((folder / "average.json").read_text())
    fsc = json.loads((folder / "fsc.json").read_text())
    assert fsc["resolution_0.143_angstrom"] == summary["resolution_0.143_angstrom"] < 100
    with (folder / "fsc.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["fsc"]) for row in rows] == pytest.approx(fsc["fsc"], abs=1e-5)
    one, two, whole = (read_volume(folder / f"{part}.mrc").data for part in ("half1", "half2", "average"))
    assert np.corrcoef((one + two).ravel(), whole.ravel())[0, 1] > 0.98
    assert whole[whole.shape[0] // 2, whole.shape[1] // 2].max() > 0
    for picture in ("ribosome/slices.png", "ribosome/fsc.png", "montage.png", "fsc.png"):
        assert (averaged / picture).read_bytes().startswith(b"\x89PNG")
    page = (averaged / "report.html").read_text()
    for entry in json.loads((averaged / "average.json").read_text())["classes"]:
        assert f"<td>{entry['class']}</td><td>{entry['particles']}</td>" in page
    star = read_annotations(folder / "particles.star", voxel_size_angstrom=VOXEL)
    table = read_annotations(folder / "particles.tbl")
    assert len(star) == len(table) == summary["particles"]
    assert star.rotations is not None and table.rotations is not None  # noqa: PT018
    assert rotation_angle_deg(star.rotations, table.rotations).max() < 0.01
    assert sorted(np.unique(star.extra["rlnRandomSubset"]).tolist()) == [1, 2]


def test_same_command_again_finds_everything(
    averaged: Path, config: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = averaged / "ribosome" / "iterations" / "iteration_000.npz"
    before, stamp = read_volume(averaged / "ribosome" / "average.mrc").data.copy(), kept.stat().st_mtime_ns
    assert call(average.main, command(config, data, averaged, "--format", "star", "--format", "dynamo")) == 0
    assert "ribosome: 1 of 1 averages are there" in capsys.readouterr().out
    assert (read_volume(averaged / "ribosome" / "average.mrc").data == before).all()
    assert kept.stat().st_mtime_ns == stamp
    assert call(average.main, command(config, data, averaged, "--box", "24")) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_nothing_that_is_there_is_replaced(
    averaged: Path, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """E1: files by hand are refused unless --overwrite allows it, inputs always, both before anything is averaged."""
    by_hand = tmp_path / "ribosome" / "mask.mrc"
    by_hand.parent.mkdir()
    by_hand.write_bytes(b"painted by hand")
    assert call(average.main, command(config, data, tmp_path)) == 2
    assert "ribosome/mask.mrc: exists; give --overwrite" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mask.mrc"]
    assert by_hand.read_bytes() == b"painted by hand"

    own = averaged / "lists" / "train_000_objl.xml"
    before = own.read_bytes()
    arguments = ["--config", str(config), "--tomo", str(data / "train"), "--picks", str(own), "--out", str(averaged)]
    assert call(average.main, [*arguments, "--iterations", "0", "--overwrite"]) == 2
    assert "is an input" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_classes_one_after_the_other_do_not_replace_each_other(
    averaged: Path, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists, montage and average.json of both classes are not replaced by those of one; stale lists go."""
    copy = tmp_path / "averages"
    shutil.copytree(averaged, copy)
    before = (copy / "average.json").read_bytes()
    assert call(average.main, command(config, data, copy, "--class", "proteasome")) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "an averaging of ribosome too" in line
    assert (copy / "average.json").read_bytes() == before
    written = sorted(path.name for path in (copy / "lists").iterdir())
    assert json.loads(before)["lists"] == written == ["meta_000_objl.xml", "train_000_objl.xml"]
    (copy / "lists" / "mine_objl.xml").write_text("not the command's own", encoding="utf-8")
    [meta] = sorted(str(path) for path in (data / "meta").glob("*_objl.xml"))
    fewer = ["--config", str(config), "--tomo", str(data / "meta"), "--picks", meta, "--out", str(copy)]
    assert call(average.main, [*fewer, "--iterations", "0", "--class", "proteasome", "--overwrite"]) == 0
    assert sorted(path.name for path in (copy / "lists").iterdir()) == ["meta_000_objl.xml", "mine_objl.xml"]
    summary = json.loads((copy / "average.json").read_text())
    assert [entry["class"] for entry in summary["classes"]] == ["proteasome"]


def test_masks_and_lists_become_shape_labels(averaged: Path, config: Path, data: Path, tmp_path: Path) -> None:
    """Sphere labels → average → shape labels: nearer to the true shapes than the spheres were."""
    truth = read_volume(data / "meta" / "meta_000_target.mrc").data.copy()
    copy = tmp_path / "data"
    (copy / "meta").mkdir(parents=True)
    for file in ("meta_000.mrc", "meta_000_objl.xml"):
        (copy / "meta" / file).write_bytes((data / "meta" / file).read_bytes())
    target = copy / "meta" / "meta_000_target.mrc"
    common = ["--config", str(config), "--data", str(copy), "--overwrite"]
    assert call(targets.main, [*common, "--labels", "sphere"]) == 0
    spheres = read_volume(target).data.copy()
    masks = [f"--mask={name}={averaged / name / 'mask.mrc'}" for name in ("ribosome", "proteasome")]
    assert call(targets.main, [*common, "--labels", "shape", *masks, "--lists", str(averaged / "lists")]) == 0
    shapes = read_volume(target).data

    def overlap(found: np.ndarray, label: int) -> float:
        return float(((found == label) & (truth == label)).sum() / ((found == label) | (truth == label)).sum())

    for label in (1, 2):
        assert overlap(shapes, label) > overlap(spheres, label) + 0.1
        assert overlap(shapes, label) > 0.7


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--symmetry", "X3"], "unknown symmetry"),
        (["--class", "nucleosome"], "no class 'nucleosome'"),
        (["--tilts=60,-60"], "tilt range"),
        (["--dose-per-tilt", "3"], "--tilt-step"),
        (["--tilt-step", "0"], "--tilt-step"),
        (["--box", "9"], "does not hold a particle"),
        (["--reference", "no_such_map.mrc"], "no_such_map.mrc"),
        (["--min-score", "0.5"], "no scores"),
        (["--iterations", "-1"], "--iterations"),
        (["--radii", "5,4,3"], "3 radii for 2 classes"),
        (["--radii-angstrom", "50,40,30"], "--radii-angstrom: 3 radii for 2 classes"),
        (["--radii-angstrom", "0"], "--radii-angstrom: 0 is no radius"),
        (["--radii-angstrom", "50", "--radii", "5"], "both give the radii"),
        (["--mask-threshold", "500"], "--mask-threshold"),
    ],
)
def test_bad_input_is_one_line(
    config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert call(average.main, command(config, data, tmp_path / "out", *more)) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_tilts_one_by_one_give_the_same_particle(
    averaged: Path, config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of dose and overlap change the average a little; what was averaged by other weights is not gone on with."""
    more = ["--class", "proteasome", "--tilt-step", "3", "--dose-per-tilt", "2"]
    assert call(average.main, command(config, data, tmp_path / "tilts", *more)) == 0
    one, other = (read_volume(folder / "proteasome" / "average.mrc").data for folder in (averaged, tmp_path / "tilts"))
    assert 0.9 < np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9999
    assert call(average.main, command(config, data, tmp_path / "tilts", "--class", "proteasome")) == 2
    assert "tomograms" in capsys.readouterr().err


def test_lists_without_orientations_need_a_reference(
    config: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = read_annotations(data / "meta" / "meta_000_objl.xml")
    path = tmp_path / "meta_000.csv"
    lines = ["x,y,z,class_label"]
    lines += [f"{x},{y},{z},{label}" for (x, y, z), label in zip(listed.positions_vox, listed.labels, strict=True)]
    path.write_text("\n".join(lines))
    arguments = ["--config", str(config), "--tomo", str(data / "meta"), "--picks", str(path), "--out", str(tmp_path)]
    assert call(average.main, arguments) == 2
    assert "--reference" in capsys.readouterr().err


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        average.main(["--help"])
    text = capsys.readouterr().out
    assert "--tomo" in text
    assert "does not prove its picks" in " ".join(text.split())
