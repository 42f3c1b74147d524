"""A new user's way from files to reviewed picks and a fine-tuned model in three worlds, on tiny data.

It takes six commands, or calls in a notebook; nothing is moved, and no file is edited by hand. A person's part is to look at
the page of the review and to save the decisions.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

import robpicker_jax as rp
from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.commands.cli import call
from robpicker_jax.reviewing import ReviewList
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from tests.commands.test_review import payload
from tests.journeys import worlds
from tests.journeys.deciding import decided, is_right

SMALL = " ".join(worlds.SMALL)
PLAIN = "--train.variant=supervised"
"""Without the meta networks, whose step takes most of the time to compile; the notebook's way trains them."""


def follow(*commands: str) -> None:
    """Run commands as a shell would; each has to succeed."""
    assert len(commands) <= 6
    for command in commands:
        robpicker, verb, *arguments = shlex.split(command)
        assert robpicker == "robpicker"
        door = importlib.import_module(f"robpicker_jax.{verb}")
        assert call(door.main, arguments) == 0, command


def digests(folder: Path) -> Mapping[Path, str]:
    """Every file of a folder with its hash."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def nearest(picked_vox: np.ndarray, truth: Particles) -> float:
    """Median distance of picks from the nearest true particle, voxels; a pick at random is about 10 away."""
    assert len(picked_vox) >= 4
    return float(np.median(np.linalg.norm(picked_vox[:, None] - truth.positions_vox[None], axis=2).min(axis=1)))


def listed(picks: str, tomogram: str) -> ReviewList:
    """The picks of a tomogram as a page shows them."""
    reviewed = ReviewedTomogram(tomogram, worlds.VOXEL, worlds.SHAPE)
    (given,) = review_lists(Path(picks), [reviewed], list(worlds.SPECIES))
    return given


def check_fine_tuned(run: Path, begun_with: Path, corrected: Path) -> None:
    """The run began with the other one's model, on the short schedule, and trained on the corrected list."""
    resolved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert Path(resolved["train"]["init_from"]).resolve() == begun_with.resolve()
    assert resolved["train"]["steps"] == 16  # a third of the first run's
    assert rp.load_model(run).card.step <= 16
    trained_on = json.loads((run / "inputs.json").read_text(encoding="utf-8"))
    assert any(corrected.name in name for name in trained_on["train"]), trained_on["train"]


def test_a_warp_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import starfile

    folder, truth = worlds.warp_project(tmp_path)
    before = digests(folder)
    monkeypatch.chdir(folder)
    unpicked = "warp_tiltseries/reconstruction/TS_03_10.00Apx.mrc"
    doctor = "robpicker doctor --config warp.yaml"
    init, train, pick, review, apply, fine_tune = (
        f"robpicker init . --species apoferritin:60,p97:70 --meta TS_02 --out warp.yaml {SMALL} {PLAIN}",
        "robpicker train --config warp.yaml --workdir RUN",
        f"robpicker pick --workdir RUN --out PICKS --format warp --together --name-pattern 'TS_[0-9]+' {unpicked}",
        f"robpicker review --workdir RUN --picks PICKS/picks.star --out REVIEW {unpicked}",
        "robpicker review --apply Review_picks.star_decisions.json --picks PICKS/picks.star --out CORRECTED",
        "robpicker train --config warp.yaml --init-from RUN --workdir BETTER --data.lists.'*' CORRECTED",
    )
    follow(init, train, pick, review)
    resolved = yaml.safe_load(Path("RUN/config.yaml").read_text())
    assert [entry["radius_vox"] for entry in resolved["data"]["species"]] == [6.0, 7.0]
    table = starfile.read("PICKS/picks.star")
    assert set(table["rlnMicrographName"]) == {"TS_03.tomostar"}
    assert nearest(table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy(), truth["TS_03"]) < 2.5
    assert [entry["name"] for entry in payload(Path("REVIEW/review.html"))["tomograms"]] == ["TS_03_10.00Apx"]

    saved = payload(Path("REVIEW/review.html"))["decisions"]
    assert saved["next"] == apply
    decided(listed("PICKS/picks.star", "TS_03_10.00Apx"), truth["TS_03"], Path(saved["file"]))
    capsys.readouterr()
    follow(apply, fine_tune)
    assert "trained on other data" not in capsys.readouterr().out
    corrected = Path("CORRECTED/TS_03_10.00Apx.xml")
    assert is_right(read_annotations(corrected), truth["TS_03"])
    check_fine_tuned(Path("BETTER"), Path("RUN"), corrected)
    assert {path: digest for path, digest in digests(folder).items() if path in before} == before
    follow(doctor)


def test_a_copick_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, truth = worlds.copick_project(tmp_path)
    import copick

    before = digests(folder)
    monkeypatch.chdir(folder)
    project = "copick_config.json"
    doctor = "robpicker doctor --config copick.yaml"
    init, train, pick, review, apply, fine_tune = (
        f"robpicker init . --out copick.yaml --meta TS_02 {SMALL} {PLAIN}",
        "robpicker train --config copick.yaml --workdir RUN",
        f"robpicker pick --workdir RUN --out {project} {project}",
        f"robpicker review --workdir RUN --picks {project} --out REVIEW {project}",
        f"robpicker review --apply Review_copick_config.json_decisions.json --picks {project} --out {project}",
        "robpicker train --config copick.yaml --init-from RUN --workdir BETTER "
        "--data.copick.prefer '[review/1]' --data.copick.train '[TS_01, TS_03]'",
    )
    follow(init, train, pick, review)
    assert yaml.safe_load(Path("copick.yaml").read_text())["data"]["species"] == [
        {"name": "apoferritin", "radius_angstrom": 60.0},  # as the project's objects have it
        {"name": "p97", "radius_angstrom": 70.0},
    ]

    def positions(user: str) -> np.ndarray:
        found = copick.from_file(project).get_run("TS_03").get_picks(user_id=user)
        return np.concatenate([picks.numpy()[0] for picks in found]) / worlds.VOXEL

    assert nearest(positions("robpicker"), truth["TS_03"]) < 2.5
    assert "TS_03" in [entry["name"] for entry in payload(Path("REVIEW/review.html"))["tomograms"]]

    saved = payload(Path("REVIEW/review.html"))["decisions"]
    assert saved["next"] == apply
    decided(listed(project, "TS_03"), truth["TS_03"], Path(saved["file"]))
    follow(apply, fine_tune)
    assert len(positions("review")) == len(truth["TS_03"])
    assert nearest(positions("review"), truth["TS_03"]) < 2.5
    (corrected,) = folder.rglob("review_1_p97.json")
    check_fine_tuned(Path("BETTER"), Path("RUN"), corrected)
    assert {path: digest for path, digest in digests(folder).items() if path in before} == before
    follow(doctor)


def test_arrays_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, truth = worlds.arrays(tmp_path)
    monkeypatch.chdir(tmp_path)
    annotated = {name: truth[name] for name in ("TS_01", "TS_02")}
    small = [flag.removeprefix("--") for flag in worlds.SMALL]

    folder = rp.write_tomograms("mine", volumes, annotated, voxel_size=worlds.VOXEL)
    config = rp.init(folder, species=worlds.SPECIES, meta=["TS_02"], overrides=small)
    model = rp.train(config, workdir="RUN")
    (page,) = rp.review("mine/TS_03.mrc", "RUN/picks", model=model, out="REVIEW")  # the run picked what has no list
    shown = payload(page)
    decided(listed("RUN/picks", "TS_03"), truth["TS_03"], Path(shown["decisions"]["file"]))  # as the page saves them
    assert shown["decisions"]["next"] == "rp.apply_review('Review_picks_decisions.json', 'RUN/picks', out='CORRECTED')"
    assert any(kind["expected"] for kind in shown["classes"])  # the calibration of the run that the model is from
    corrected = rp.apply_review("Review_picks_decisions.json", "RUN/picks", out="CORRECTED")
    better = rp.train(config, workdir="BETTER", init_from="RUN", overrides=["data.lists=[mine, CORRECTED]"])

    assert model.species == better.species == list(worlds.SPECIES)
    assert [entry["name"] for entry in payload(page)["tomograms"]] == ["TS_03"]
    picks = model.pick(volumes["TS_03"], voxel_size=worlds.VOXEL)
    assert nearest(picks.positions_vox, truth["TS_03"]) < 2.5
    assert is_right(corrected["TS_03"], truth["TS_03"])
    check_fine_tuned(Path("BETTER"), Path("RUN"), Path("CORRECTED/TS_03.xml"))
    with pytest.raises(rp.InputError, match="exists"):
        rp.init(folder)
    with pytest.raises(rp.InputError, match="exists"):
        rp.write_tomograms(folder, volumes, voxel_size=worlds.VOXEL)
    with pytest.raises(rp.InputError, match="no tomogram 'TS_09'"):
        rp.write_tomograms(tmp_path / "new", volumes, {"TS_09": truth["TS_01"]}, voxel_size=worlds.VOXEL)
