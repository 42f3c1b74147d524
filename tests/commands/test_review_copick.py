"""The loop of a review in a copick project: runs are shown, and what was decided goes into the overlay as user review."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations.copick_json import REVIEWER
from robpicker_jax.commands import review
from robpicker_jax.commands.cli import call
from robpicker_jax.config import CopickConfig
from robpicker_jax.datasets.copick_project import project_lists
from robpicker_jax.reporting import viewer
from robpicker_jax.reviewing import Edit, Review, write_decisions
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from tests.commands.test_review import payload
from tests.datasets.copick_cases import POSITIONS, SHAPE, add, make_project

NAMES = ["apo-ferritin", "ribosome"]
SPECIES = "apo-ferritin:60,ribosome:150"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three runs; ann picked all of them, and the picker the second and the third."""
    path = make_project(tmp_path)
    import copick

    root = copick.from_file(str(path))
    for name in ("TS_2", "TS_3"):
        add(root.get_run(name), "ribosome", "robpicker", [[20.0, 30.0, 40.0], [50.0, 60.0, 10.0]], session="0")
    return path


def points(project: Path, run: str, user: str, session: str) -> dict[str, list[list[float]]]:
    """Positions in Å by object, as the copick library reads them."""
    import copick

    found = copick.from_file(str(project)).get_run(run).get_picks(user_id=user, session_id=session)
    return {picks.pickable_object_name: picks.numpy()[0].tolist() for picks in found}


def test_the_runs_that_were_picked_are_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = project.parent / "REVIEW"
    arguments = ["--species", SPECIES, "--picks", str(project), str(project), "--out"]
    assert call(review.main, [*arguments, str(out)]) == 0
    shown = payload(out / "review.html")
    assert [entry["name"] for entry in shown["tomograms"]] == ["TS_2", "TS_3"]
    assert shown["tomograms"][0]["picks"]["x"] == [2.0, 5.0]
    assert shown["tomograms"][0]["voxel"] == 10.0
    assert "1 of 3 tomograms have no list there" in capsys.readouterr().out
    anns = ["--picks-option", "user=ann"]
    assert call(review.main, [*arguments, str(project.parent / "ANN"), *anns]) == 0
    shown = payload(project.parent / "ANN" / "review.html")
    assert [entry["name"] for entry in shown["tomograms"]] == ["TS_1", "TS_2", "TS_3"]
    assert len(shown["tomograms"][0]["picks"]["x"]) == 3


def test_what_was_decided_goes_into_the_overlay(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tomogram = ReviewedTomogram("TS_3", 10.0, SHAPE)
    (given,) = review_lists(project, [tomogram], NAMES)
    made = Review(given, [Edit("reject", 0), Edit("add", label=1, at=(1.0, 2.0, 3.0))])
    decisions = project.parent / "d.json"
    write_decisions(decisions, "x", [(made, {})])
    apply = ["--apply", str(decisions), "--picks", str(project), "--out", str(project)]
    monkeypatch.chdir(project.parent)
    assert call(review.main, apply) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "overlay/ExperimentRuns/TS_3/Picks: 2 particles; the list that was reviewed has 2" in said
    assert str(project.parent) not in said
    assert points(project, "TS_3", "review", "1") == {"apo-ferritin": [[10, 20, 30]], "ribosome": [[50, 60, 10]]}
    assert points(project, "TS_3", "robpicker", "0") == {"ribosome": [[20, 30, 40], [50, 60, 10]]}
    assert points(project, "TS_3", "ann", "1").keys() == POSITIONS.keys()
    preferred = project_lists(project, CopickConfig(user="ann", prefer=("review/1",)))
    assert {path.name.partition("_")[0] for _, path in preferred["TS_3"]} == {"review"}
    assert {path.name.partition("_")[0] for _, path in preferred["TS_2"]} == {"ann"}

    assert call(review.main, apply) == 2
    assert "exists" in capsys.readouterr().err
    rejected = Review(given, [Edit("reject", 0), Edit("reject", 1)])
    write_decisions(decisions, "x", [(rejected, {})])
    assert call(review.main, [*apply, "--overwrite"]) == 0
    assert {name: len(found) for name, found in points(project, "TS_3", "review", "1").items()} == {
        "apo-ferritin": 0,
        "ribosome": 0,
    }
    assert call(review.main, [*apply, "--format-option", "user_id=ben", "--format-option", "session_id=4"]) == 0
    assert points(project, "TS_3", "ben", "4").keys() == {"apo-ferritin", "ribosome"}
    assert call(review.main, [*apply, "--format", "xml"]) == 2
    assert "copick's picks alone" in capsys.readouterr().err


def test_a_model_may_know_species_that_the_project_has_no_object_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["proteasome", *NAMES]  # the project's objects have the labels 2 and 3
    (given,) = review_lists(project, [ReviewedTomogram("TS_3", 10.0, SHAPE)], names)
    assert given.particles.labels.tolist() == [3, 3]
    edits = [Edit("reject", 0), Edit("add", label=2, at=(1.0, 2.0, 3.0))]
    write_decisions(project.parent / "d.json", "x", [(Review(given, edits), {})])
    apply = ["--apply", str(project.parent / "d.json"), "--picks", str(project), "--out", str(project)]
    assert call(review.main, apply) == 0
    assert points(project, "TS_3", "review", "1") == {"apo-ferritin": [[10, 20, 30]], "ribosome": [[50, 60, 10]]}
    edits = [Edit("add", label=1, at=(1.0, 2.0, 3.0))]
    write_decisions(project.parent / "d.json", "x", [(Review(given, edits), {})])
    assert call(review.main, [*apply, "--overwrite"]) == 2
    assert "proteasome" in capsys.readouterr().err


def test_lists_in_a_folder_have_the_same_user(project: Path) -> None:
    (given,) = review_lists(project, [ReviewedTomogram("TS_2", 10.0, SHAPE)], NAMES)
    write_decisions(project.parent / "d.json", "x", [(Review(given, [Edit("reject", 0)]), {})])
    apply = ["--apply", str(project.parent / "d.json"), "--picks", str(project), "--format", "copick"]
    assert call(review.main, [*apply, "--out", str(project.parent / "LISTS")]) == 0
    (written,) = (project.parent / "LISTS").glob("**/*.json")
    assert written.name == "review_1_ribosome.json"
    (read,) = review_lists(project.parent / "LISTS", [ReviewedTomogram("TS_2", 10.0, SHAPE)], NAMES)
    np.testing.assert_allclose(read.particles.positions_vox, [[5, 6, 1]])


def test_the_page_saves_lists_of_the_same_user() -> None:
    script = (Path(viewer.__file__).parent / "static/viewer/formats.js").read_text(encoding="utf-8")
    user, session = REVIEWER["user_id"], REVIEWER["session_id"]
    assert f'user_id: "{user}", session_id: "{session}"' in script
    assert f'"{user}_{session}_"' in script


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--picks-option", "user=eve"], "no picks by eve"),
        (["--data.copick.tomo_type", "denoised"], "no tomogram of type 'denoised' in this project"),
        (["--picking.min_score", "0.5"], "data.copick alone"),
        (["--data.copick.kind", "wbp"], "kind: unknown key"),
    ],
)
def test_bad_input_is_one_line(
    further: list[str], message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--species", SPECIES, "--picks", str(project), "--out", str(project.parent / "OUT"), *further]
    assert call(review.main, [*arguments, str(project)]) == 2
    assert re.search(message, capsys.readouterr().err)
