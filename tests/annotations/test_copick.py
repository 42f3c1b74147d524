"""copick projects: positions with their shift, run names as they are, and one source for each object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError


def picks(locations: Any, translations: Any = None, **content: Any) -> dict[str, Any]:
    """The JSON of a picks file, with a rotation in every point."""
    rotations = random_rotations(len(locations), np.random.default_rng(0))
    points = []
    for i, location in enumerate(locations):
        matrix = np.eye(4)
        matrix[:3, :3] = rotations[i]
        if translations is not None:
            matrix[:3, 3] = translations[i]
        points.append({"location": dict(zip("xyz", map(float, location), strict=True)), "score": 0.5})
        points[-1]["transformation_"] = matrix.tolist()
    return {"pickable_object_name": "ribosome", "voxel_spacing": 10.0, "unit": "angstrom", "points": points} | content


def project(folder: Path, *lists: tuple[str, str, str, str, int]) -> Path:
    """A project with lists of (run, user, session, object, number of points)."""
    for run, user, session, name, n in lists:
        path = folder / "ExperimentRuns" / run / "Picks" / f"{user}_{session}_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {"user_id": user, "session_id": session, "pickable_object_name": name, "run_name": run}
        path.write_text(json.dumps(picks(np.full((n, 3), 100.0), **said)))
    return folder


def test_a2_the_translation_of_copick_moves_the_particle(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(picks([[1000, 2000, 500]], [[30, -20, 10]])))
    np.testing.assert_allclose(read_annotations(path).positions_vox, [[103, 198, 51]])
    assert call(convert.main, [str(path), str(tmp_path / "o.csv")]) == 0
    np.testing.assert_allclose(read_annotations(tmp_path / "o.csv").positions_vox, [[103, 198, 51]])


def test_a2_a_translation_that_repeats_every_location_is_not_added(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    locations = np.array([[1000.0, 2000, 500], [10, 20, 30]])
    path.write_text(json.dumps(picks(locations, locations)))
    np.testing.assert_allclose(read_annotations(path).positions_vox, locations / 10)
    path.write_text(json.dumps(picks(locations, [locations[0], [0, 0, 0]])))  # one of two repeats it: a shift by chance
    np.testing.assert_allclose(read_annotations(path).positions_vox, [[200, 400, 100], [1, 2, 3]])


def test_a2_the_case_from_the_field(shared_data: Path) -> None:
    found = read_annotations(shared_data / "cases" / "copick_with_shift.json")
    np.testing.assert_allclose(found.positions_vox, [[103, 198, 51]])


@given(
    st.lists(st.tuples(*[st.floats(1, 5000)] * 3, *[st.floats(-500, 500)] * 3), min_size=1, max_size=5),
    st.booleans(),
)
def test_a2_position_is_location_plus_translation(tmp_path_factory: Any, rows: list[Any], trusted: bool) -> None:
    """Whatever the rotations, and whether they are trusted; the sum that the file's own numbers give is the reference."""
    table = np.array(rows)
    path = tmp_path_factory.mktemp("copick") / "p.json"
    path.write_text(json.dumps(picks(table[:, :3], table[:, 3:], trust_orientation=trusted)))
    repeats = np.abs(table[:, 3:] - table[:, :3]).max() <= 1e-3
    expected = table[:, :3] + (0 if repeats else table[:, 3:])
    np.testing.assert_allclose(read_annotations(path).positions_vox, expected / 10, rtol=1e-12)


def test_a10_runs_keep_their_names_in_an_existing_overlay(tmp_path: Path) -> None:
    folder = project(tmp_path / "overlay", ("TS_99_9", "ann", "1", "ribosome", 2))
    particles = Particles([[1, 2, 3]], [1], class_names=["beta_gal"], tomograms=["TS_99_9"])
    write_annotations(tmp_path / "a.csv", particles)
    there = [str(tmp_path / "a.csv"), str(folder), "--to", "copick", "--voxel-size", "10"]
    assert call(convert.main, there) == 0
    files = sorted(p.relative_to(folder / "ExperimentRuns").as_posix() for p in folder.rglob("*.json"))
    assert files == ["TS_99_9/Picks/ann_1_ribosome.json", "TS_99_9/Picks/robpicker_0_beta-gal.json"]
    assert set(read_annotations(folder, voxel_size_angstrom=10).tomograms) == {"TS_99_9"}
    assert call(convert.main, there) == 2  # its own file would be replaced
    assert call(convert.main, [*there, "--overwrite"]) == 0
    assert len(read_annotations(folder, object="ribosome")) == 2


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="/\\"), min_size=1, max_size=30))
def test_a10_any_run_name_survives(tmp_path_factory: Any, run: str) -> None:
    folder = tmp_path_factory.mktemp("copick") / "project"
    particles = Particles([[1, 2, 3]], [1], class_names=["a"], tomograms=[run])
    if run in (".", ".."):
        with pytest.raises(InputError, match="cannot be a folder"):
            write_annotations(folder, particles, fmt="copick", voxel_size_angstrom=10.0)
        return
    write_annotations(folder, particles, fmt="copick", voxel_size_angstrom=10.0)
    assert [path.name for path in (folder / "ExperimentRuns").iterdir()] == [run]
    assert read_annotations(folder).tomograms.tolist() == [run]


def test_a10_names_that_cannot_be_files_are_refused(tmp_path: Path) -> None:
    for names, runs, message in (
        (["a"], [".."], "cannot be a folder's name"),
        (["a_b", "a b"], ["t", "t"], "would have one file"),
    ):
        particles = Particles(np.ones((len(names), 3)), [1] * len(names), class_names=names, tomograms=runs)
        with pytest.raises(InputError, match=message):
            write_annotations(tmp_path / "project", particles, fmt="copick", voxel_size_angstrom=10.0)
    assert not list(tmp_path.iterdir())


def test_a11_two_sources_of_one_object_are_not_added_up(tmp_path: Path) -> None:
    folder = project(
        tmp_path,
        ("TS_1", "ann", "1", "ribosome", 45),
        ("TS_1", "tool", "7", "ribosome", 10),
        ("TS_1", "ann", "1", "ferritin", 3),
        ("TS_2", "ann", "1", "ribosome", 5),
    )
    with pytest.raises(
        InputError, match=r"'ann' session '1' \(45\).*'tool' session '7' \(10\).*user, session and object"
    ):
        read_annotations(folder)
    assert len(read_annotations(folder, user="ann")) == 53
    assert len(read_annotations(folder, session="7")) == 10
    assert len(read_annotations(folder, user="ann", object="ribosome")) == 50
    with pytest.raises(InputError, match=r"no picks of user 'eve'.*ferritin of ann_1"):
        read_annotations(folder, user="eve")


def test_a11_options_on_the_command_line(tmp_path: Path) -> None:
    """A session that looks like a number, with zeros before it or a day, is a name."""
    sessions = ("7", "007", "2024-01-05")
    folder = project(tmp_path / "p", *(("TS_1", "ann", s, "ribosome", n) for n, s in enumerate(sessions, start=1)))
    for n, session in enumerate(sessions, start=1):
        out = tmp_path / f"{n}.csv"
        assert call(convert.main, [str(folder), str(out), "--from-option", f"session={session}"]) == 0
        assert len(read_annotations(out)) == n
    assert call(convert.main, [str(folder), str(tmp_path / "all.csv")]) == 2
