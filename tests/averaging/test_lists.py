"""Which picks `average` takes: one list a class and tomogram, read with the tomogram's own size, no pick twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.averaging.particle_set import without_repeats
from robpicker_jax.commands import average
from robpicker_jax.commands.averaging_inputs import AveragingInputs, read_inputs
from robpicker_jax.commands.cli import call
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast
VOXEL = 10.0
SHAPES = {"first": (24, 40, 44), "second": (30, 36, 48)}
POSITIONS = np.stack(np.meshgrid([12.0, 22.0, 32.0], [12.0, 24.0], [12.0], indexing="ij"), -1).reshape(-1, 3)


def picks(positions: np.ndarray = POSITIONS, **columns: Any) -> Particles:
    n = len(positions)
    return Particles(positions, np.ones(n, np.int32), rotations=np.tile(np.eye(3), (n, 1, 1)), **columns)


@pytest.fixture
def tomograms(tmp_path: Path) -> Path:
    folder = tmp_path / "tomograms"
    for number, (name, shape) in enumerate(SHAPES.items()):
        data = np.random.default_rng(number).standard_normal(shape).astype(np.float32)
        write_mrc(folder / f"{name}.mrc", data, VOXEL)
    return folder


def arguments(tomograms: Path, lists: list[Path], out: Path, *more: str) -> list[str]:
    named = ["--tomo", str(tomograms), "--picks", *map(str, lists), "--out", str(out)]
    return [*named, "--radii", "4", "--iterations", "0", "--contrast", "bright", *more]


def inputs(tomograms: Path, lists: list[Path], tmp_path: Path) -> AveragingInputs:
    options = average._parser().parse_args(arguments(tomograms, lists, tmp_path / "out"))
    return read_inputs(options, [])


def test_radii_in_angstrom_are_those_in_voxels(tomograms: Path, tmp_path: Path) -> None:
    path = tmp_path / "picks" / "first.csv"
    write_annotations(path, picks(), voxel_size_angstrom=VOXEL)
    in_voxels = inputs(tomograms, [path], tmp_path)
    given = arguments(tomograms, [path], tmp_path / "out")
    place = given.index("--radii")
    given[place : place + 2] = ["--radii-angstrom", str(4 * VOXEL)]
    in_angstrom = read_inputs(average._parser().parse_args(given), [])
    assert in_angstrom.classes[0].job.settings == in_voxels.classes[0].job.settings
    assert in_angstrom.classes[0].job.settings.radius_vox == 4


def test_one_list_in_several_formats_is_refused(
    tomograms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`match` writes xml, star and csv: all three at once would put each particle into both halves."""
    lists = [tmp_path / "picks" / f"first{suffix}" for suffix in ("_objl.xml", ".csv")]
    for path in lists:
        write_annotations(path, picks(), voxel_size_angstrom=VOXEL)
    assert call(average.main, arguments(tomograms, lists, tmp_path / "out")) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "a second list of" in line
    assert "first.csv" in line
    assert len(inputs(tomograms, lists[:1], tmp_path).classes[0].job.particles) == len(POSITIONS)
    assert len(inputs(tomograms, [tmp_path / "picks"], tmp_path).classes[0].job.particles) == len(POSITIONS)


def test_lists_of_other_classes_are_joined(tomograms: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"first_{name}.csv" for name in ("a", "b")]
    for label, path in enumerate(paths, start=1):
        write_annotations(path, picks().with_(labels=np.full(len(POSITIONS), label)), voxel_size_angstrom=VOXEL)
    found = inputs(tomograms / "first.mrc", paths, tmp_path).classes
    assert [(entry.label, len(entry.job.particles)) for entry in found] == [(1, len(POSITIONS)), (2, len(POSITIONS))]


def test_picks_of_one_particle_are_averaged_once(tomograms: Path, tmp_path: Path) -> None:
    twice = np.concatenate([POSITIONS, POSITIONS + 0.9])  # 1.56 voxels; half a radius is 2
    scores = np.concatenate([np.linspace(0.1, 0.9, 6), np.linspace(0.9, 0.1, 6)]).astype(np.float32)
    path = tmp_path / "first.csv"
    write_annotations(path, picks(twice, scores=scores), voxel_size_angstrom=VOXEL)
    [found] = inputs(tomograms, [path], tmp_path).classes
    better = np.where(scores[:6, None] >= scores[6:, None], POSITIONS, twice[6:])
    listed = found.job.particles.listed_vox
    np.testing.assert_allclose(np.sort(listed, axis=0), np.sort(better, axis=0), atol=1e-3)
    assert found.repeated == 6


def test_repeats_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    positions, scores = rng.uniform(0, 12, (60, 3)), rng.uniform(size=60)
    left = without_repeats(picks(positions, scores=scores), 3.0)
    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(np.linalg.norm(positions[index] - positions[other]) > 3.0 for other in kept):
            kept.append(int(index))
    np.testing.assert_array_equal(left.positions_vox, positions[sorted(kept)])
    assert len(without_repeats(picks(positions[:0]), 3.0)) == 0


def test_of_a_training_folder_the_picks_are_averaged_and_not_the_truth(tomograms: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, name in (("train", "first"), ("meta", "second")):
        (data / split).mkdir(parents=True)
        (data / split / f"{name}.mrc").write_bytes((tomograms / f"{name}.mrc").read_bytes())
        write_annotations(data / split / f"{name}_objl.xml", picks(POSITIONS[:4] + 0.5))
        write_annotations(data / split / f"{name}_truth_objl.xml", picks())
    for given in ([data / "train", data / "meta"], [data]):
        [found] = inputs(tomograms, given, tmp_path).classes
        listed = found.job.particles
        np.testing.assert_array_equal(np.bincount(listed.source), [4, 4])
        np.testing.assert_allclose(listed.listed_vox[:4], POSITIONS[:4] + 0.5, atol=1e-6)


def test_each_list_is_read_with_its_own_tomograms_size(tomograms: Path, tmp_path: Path) -> None:
    """RELION 5 counts from the tomogram's centre."""
    apart, together = [], picks(np.tile(POSITIONS, (2, 1)), tomograms=np.repeat(list(SHAPES), len(POSITIONS)))
    for name, shape in SHAPES.items():
        apart.append(tmp_path / f"{name}.star")
        write_annotations(apart[-1], picks(), fmt="relion5", voxel_size_angstrom=VOXEL, shape_zyx=shape)
    both = tmp_path / "both.star"
    write_annotations(both, together, fmt="relion5", voxel_size_angstrom=VOXEL, shapes_zyx=SHAPES)
    for given in (apart, [both]):
        [found] = inputs(tomograms, given, tmp_path).classes
        np.testing.assert_allclose(found.job.particles.listed_vox, np.tile(POSITIONS, (2, 1)), atol=1e-3)


@pytest.mark.parametrize(
    ("more", "warned"), [(["--start-resolution", "39"], True), (["--start-resolution", "40"], False)]
)
def test_fine_detail_of_a_shared_reference_is_warned_of(
    tomograms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], warned: bool
) -> None:
    given = arguments(tomograms, [tmp_path / "none.xml"], tmp_path / "out", "--reference", "map.mrc", *more)
    assert call(average.main, given) == 2
    assert ("the FSC says little" in capsys.readouterr().out) == warned


def test_numbers_that_are_none_are_refused_with_an_example(
    tomograms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(average.main, arguments(tomograms, [tmp_path], tmp_path / "out", "--radii", "a")) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "--radii: 'a' is no list of numbers, such as 5,4.5" in line
