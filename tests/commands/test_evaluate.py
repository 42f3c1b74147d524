"""The `evaluate` command: what it reads, what it says, what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.commands import evaluate
from robpicker_jax.commands.cli import call
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast

SPECIES = """
data:
  voxel_size_angstrom: 10.0
  meta_labels: {labels}
  species:
    - {{name: ribosome, radius_vox: 7, phantom: ribosome, molecular_weight_kda: 3200}}
    - {{name: proteasome, radius_vox: 6, phantom: proteasome, molecular_weight_kda: 750}}
"""


def make(seed: int = 0, *, named: bool = False) -> Particles:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(20, 100, 30)] * 3), axis=-1).reshape(-1, 3)
    labels = rng.integers(1, 3, len(grid)).astype(np.int32)
    names = np.array(["ribosome", "proteasome"])[labels - 1] if named else None
    return Particles(
        grid + rng.uniform(-3, 3, grid.shape),
        labels,
        rotations=random_rotations(len(grid), rng),
        scores=rng.random(len(grid)),
        class_names=names,
    )


def run(*arguments: object) -> int:
    overwrite = ["--overwrite"] if "--json" in arguments else []
    return call(evaluate.main, [*map(str, arguments), *overwrite])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SPECIES.format(labels="sphere"))
    return path


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """Truth and picks of two tomograms; the picks lack three particles each and are written in two formats."""
    for index in (1, 2):
        truth = make(index)
        write_annotations(tmp_path / "truth" / f"tomo_{index}_objl.xml", truth)
        picks = truth.select(slice(3, None))
        for suffix in ("xml", "star"):
            write_annotations(tmp_path / "picks" / f"tomo_{index}.{suffix}", picks, voxel_size_angstrom=10.0)
    return tmp_path / "truth", tmp_path / "picks"


def test_folders_of_lists(
    lists: tuple[Path, Path], config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    truth, picks = lists
    out = tmp_path / "evaluation.json"
    assert run("--truth", truth, "--picks", picks, "--config", config, "--json", out) == 0
    result = json.loads(out.read_text())
    assert result["micro"]["f1"] == pytest.approx(2 * 48 / (54 + 48))
    assert result["micro"]["true_positives"] == 48
    assert [row["name"] for row in result["tomograms"]] == ["tomo_1", "tomo_2"]
    assert [row["name"] for row in result["classes"]] == ["ribosome", "proteasome"]
    assert [group["name"] for group in result["groups"]] == ["medium", "large"]
    assert "ribosome" in capsys.readouterr().out


def test_rules_and_their_options(lists: tuple[Path, Path], config: Path, tmp_path: Path) -> None:
    truth, picks = lists
    out = tmp_path / "evaluation.json"

    def result(*arguments: object) -> dict:
        assert run("--truth", truth, "--picks", picks, "--config", config, "--json", out, *arguments) == 0
        return json.loads(out.read_text())

    found = result("--rule", "czii")
    assert (found["rule"], found["beta"], found["limits_vox"]) == ("czii", 4, [3.5, 3.0])
    found = result("--rule", "tolerance", "--tolerance", "2.5", "--beta", "2", "--many-to-one")
    assert (found["beta"], found["limits_vox"], found["one_to_one"]) == (2, [2.5, 2.5], False)
    assert result("--evaluation.rule", "tolerance")["limits_vox"] == [10, 10]
    assert result("--radii", "3,2")["limits_vox"] == [3, 2]
    assert result("--radii-angstrom", "30,25")["limits_vox"] == [3, 2.5]


def test_shapes_decide_where_the_configuration_says_so(tmp_path: Path) -> None:
    config = tmp_path / "shapes.yaml"
    config.write_text(SPECIES.format(labels="shape"))
    truth = make(3)
    write_annotations(tmp_path / "truth.xml", truth)
    far = truth.with_(positions_vox=truth.positions_vox + np.array([15.0, 15.0, 0.0]))
    write_annotations(tmp_path / "picks.xml", Particles.concatenate([truth.select(slice(0, 20)), far]))
    out = tmp_path / "out.json"
    arguments = (
        "--truth",
        tmp_path / "truth.xml",
        "--picks",
        tmp_path / "picks.xml",
        "--config",
        config,
        "--json",
        out,
    )
    assert run(*arguments) == 0
    result = json.loads(out.read_text())
    assert result["limits_vox"] is None
    assert result["micro"]["true_positives"] == 20
    assert run(*arguments, "--labels", "sphere") == 0
    assert json.loads(out.read_text())["limits_vox"] == [7, 6]


def test_a_data_set_gives_its_clean_truth_and_its_voxel_size(tmp_path: Path, config: Path) -> None:
    truth = make(4)
    folder = tmp_path / "data" / "train"
    write_annotations(folder / "a_truth_objl.xml", truth)
    write_annotations(folder / "a_objl.xml", truth.select(slice(0, 5)))
    write_mrc(folder / "a.mrc", np.zeros((110, 110, 110), np.float32), 10.0)
    write_mrc(folder / "b.mrc", np.zeros((110, 110, 110), np.float32), 10.0)  # no list: not judged
    write_annotations(tmp_path / "picks" / "a.star", truth, voxel_size_angstrom=10.0)
    write_annotations(tmp_path / "picks" / "b.star", truth, voxel_size_angstrom=10.0)
    out = tmp_path / "out.json"
    arguments = ("--truth", tmp_path / "data", "--picks", tmp_path / "picks", "--config", config, "--json", out)
    assert run(*arguments, "--split", "train") == 0
    result = json.loads(out.read_text())
    assert result["micro"]["f1"] == 1
    assert result["micro"]["true"] == 27
    assert result["voxel_size_angstrom"] == 10
    assert run(*arguments) == 2  # no test split


def masked_data_set(folder: Path) -> tuple[int, int]:
    """Truth of two tomograms, picks as good, and of one tomogram a mask; (true, inside) of that one."""
    for seed, name in enumerate("ab"):
        write_annotations(folder / "data" / "test" / f"{name}_objl.xml", make(seed))
        write_mrc(folder / "data" / "test" / f"{name}.mrc", np.zeros((110, 100, 105), np.float32), 10.0)
        write_annotations(folder / "picks" / f"{name}.xml", make(seed))
    mask = np.zeros((110, 100, 105), np.uint8)
    mask[30:, :, :60] = 1
    write_mrc(folder / "data" / "test" / "b_mask.mrc", mask, 10.0)
    write_mrc(folder / "masks" / "b.mrc", mask, 10.0)
    positions = make(1).positions_vox
    return 27, sum(1 for x, _, z in positions if z >= 29.5 and x < 59.5)


def test_masks_beside_the_truth_or_elsewhere(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture) -> None:
    whole, inside = masked_data_set(tmp_path)
    assert 0 < inside < whole
    out = tmp_path / "out.json"

    def true(truth: Path, *more: object) -> int:
        assert run("--truth", truth, "--picks", tmp_path / "picks", "--config", config, "--json", out, *more) == 0
        result = json.loads(out.read_text())
        assert result["micro"]["f1"] == 1
        assert result["tomograms"][1]["left_out"]["true"] == 2 * whole - result["micro"]["true"]
        return int(result["micro"]["true"])

    data = tmp_path / "data"
    assert true(data) == whole + inside
    assert "counted whole: a" in capsys.readouterr().out
    assert true(data, "--no-masks") == 2 * whole
    lists = tmp_path / "lists"
    for name in "ab":
        write_annotations(lists / f"{name}.xml", make("ab".index(name)))
    assert true(lists) == 2 * whole
    assert true(lists, "--masks", data) == whole + inside
    assert true(lists, "--masks", data / "test") == whole + inside
    assert true(lists, "--masks", tmp_path / "masks") == whole + inside  # without _mask in the names


def test_masks_that_do_not_fit(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture) -> None:
    masked_data_set(tmp_path)
    arguments = ("--picks", tmp_path / "picks", "--config", config, "--truth", tmp_path / "data", "--masks")
    one = tmp_path / "masks" / "b.mrc"
    assert run(*arguments, one) == 2
    assert "one mask for 2 tomograms" in capsys.readouterr().err
    assert run(*arguments, tmp_path / "picks") == 2
    assert "no mask of the truth's tomograms" in capsys.readouterr().err
    write_mrc(one, np.ones((55, 50, 53), np.uint8), 20.0)  # at another binning
    assert run(*arguments, tmp_path / "masks") == 2
    error = capsys.readouterr().err
    assert "53 x 50 x 55" in error
    assert "binning" in error
    assert run(*arguments, tmp_path / "nowhere") == 2
    assert run(*arguments, config) == 2


def test_without_configuration_the_lists_name_the_classes(tmp_path: Path) -> None:
    truth = make(5, named=True)
    write_annotations(tmp_path / "truth.xml", truth)
    swapped = truth.with_(labels=3 - truth.labels)  # another program's numbers, the same names
    write_annotations(tmp_path / "other.xml", swapped)
    out = tmp_path / "out.json"
    arguments = ("--truth", tmp_path / "truth.xml", "--picks", tmp_path / "other.xml", "--json", out)
    assert run(*arguments, "--rule", "tolerance") == 0
    result = json.loads(out.read_text())
    assert result["macro_f1"] == 1
    assert [row["name"] for row in result["classes"]] == ["ribosome", "proteasome"]
    assert run(*arguments) == 2  # the mask rule needs radii
    assert run(*arguments, "--radii", "7,6") == 0


def test_lists_without_classes_are_of_the_only_class(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    points = make(1)
    bare, one = tmp_path / "truth.coords", tmp_path / "picks.xml"
    write_annotations(bare, points)
    write_annotations(one, points.with_(labels=np.ones(len(points), np.int32)))
    out = tmp_path / "out.json"
    arguments = ("--rule", "tolerance", "--tolerance", 1, "--json", out)
    for truth, picks, more in (
        (bare, one, ()),
        (one, bare, ()),
        (bare, one, ("--classes", "ribosome")),
        (bare, bare, ()),
    ):
        assert run("--truth", truth, "--picks", picks, *arguments, *more) == 0
        assert json.loads(out.read_text())["micro"]["true_positives"] == len(points)
    write_annotations(one, points, fmt="xml")  # of two classes: which one the others are of nobody knows
    assert run("--truth", bare, "--picks", one, *arguments) == 2
    assert "give --classes" in capsys.readouterr().err


def test_one_list_of_several_tomograms(lists: tuple[Path, Path], tmp_path: Path) -> None:
    truth = Particles.concatenate([make(k).with_(tomograms=np.full(27, f"tomo_{k}")) for k in (1, 2)])
    write_annotations(tmp_path / "all.star", truth)
    out = tmp_path / "out.json"
    arguments = ("--truth", tmp_path / "all.star", "--picks", lists[1], "--rule", "tolerance", "--json", out)
    assert run(*arguments) == 0
    assert json.loads(out.read_text())["micro"]["true_positives"] == 48


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda truth, picks: (picks / "tomo_1.xml", picks / "tomo_1.star"), "no picks for 1 of 2 tomograms: tomo_1"),
        (lambda truth, picks: tuple(picks.iterdir()), "no particle list in it"),
        (lambda truth, picks: tuple(truth.iterdir()), "no particle list in it"),
    ],
)
def test_missing_lists_are_bad_input(
    lists: tuple[Path, Path], config: Path, break_it: object, message: str, capsys: pytest.CaptureFixture
) -> None:
    for path in break_it(*lists):
        path.unlink()
    assert run("--truth", lists[0], "--picks", lists[1], "--config", config) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_missing_lists_may_mean_no_picks(lists: tuple[Path, Path], config: Path, tmp_path: Path) -> None:
    for path in lists[1].glob("tomo_1.*"):
        path.unlink()
    out = tmp_path / "out.json"
    arguments = ("--truth", lists[0], "--picks", lists[1], "--config", config, "--json", out)
    assert run(*arguments, "--missing-as-empty") == 0
    assert json.loads(out.read_text())["micro"]["true_positives"] == 24


def test_bad_arguments(lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth, picks = lists
    assert run("--truth", tmp_path / "nowhere", "--picks", picks) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert run("--truth", truth, "--picks", picks, "--radii", "7,a") == 2
    capsys.readouterr()
    assert run("--truth", truth, "--picks", picks, "--radii-angstrom", "70,60") == 2
    assert (
        "--radii-angstrom: the voxel size that makes voxels of Å is not known; give --voxel-size"
        in capsys.readouterr().err
    )
    sized = ["--truth", truth, "--picks", picks, "--voxel-size", "10"]
    assert run(*sized, "--radii-angstrom", "70,60", "--radii", "7,6") == 2
    assert "both give the radii" in capsys.readouterr().err
    assert run(*sized, "--radii-angstrom", "70,-60") == 2
    assert "--radii-angstrom: -60 is no radius" in capsys.readouterr().err
    assert run("--truth", truth, "--picks", picks, "--labels", "shape") == 2
    assert "give --config" in capsys.readouterr().err
    assert run("--truth", truth, "--picks", picks, "--rule", "tolerance", "--classes", "ribosome") == 2
    assert "class labels outside" in capsys.readouterr().err


def test_real_lists_against_themselves(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "annotations" / "empiar11830_test_tomo2814_objl.xml"
    out = tmp_path / "out.json"
    assert run("--truth", path, "--picks", path, "--rule", "tolerance", "--tolerance", "10", "--json", out) == 0
    result = json.loads(out.read_text())
    assert result["macro_f1"] == 1
    assert all(row["localisation"] is None or row["localisation"]["mean_vox"] == 0 for row in result["classes"])
