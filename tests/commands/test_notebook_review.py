"""Reviewing and fine-tuning from a notebook: the same pages, decisions and schedule as the commands'."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robpicker_jax as rp
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.models.provenance import Provenance
from robpicker_jax.picking import calibration
from robpicker_jax.reviewing import Edit, Review, fingerprint, write_decisions
from tests.commands.test_review import SPECIES, folder, payload  # noqa: F401
from tests.reviewing.review_cases import CLASSES, content, picks

RADII = {name: float(radius) for name, _, radius in (entry.partition(":") for entry in SPECIES.split(","))}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=(32, 32, 32)) for name in ("TS_01", "TS_02")}


def test_arrays_and_picks_in_memory(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    given = {name: picks(seed=seed, name=name) for seed, name in enumerate(arrays)}
    particles = {name: one.particles for name, one in given.items()}
    radii = dict(zip(CLASSES, (67.4, 40.44, 54.0), strict=True))
    (page,) = rp.review(arrays, particles, species=radii, voxel_size=13.48, out=tmp_path / "REVIEW")
    shown = payload(page)
    assert [entry["list"] for entry in shown["tomograms"]] == [fingerprint(one) for one in particles.values()]
    np.testing.assert_allclose([kind["radius"] for kind in shown["classes"]], [5.0, 3.0, 54 / 13.48])

    made = Review(given["TS_02"], [Edit("reject", 0), Edit("add", label=1, at=(1.5, 2.5, 3.5))])
    write_decisions(tmp_path / "d.json", "x", [(made, {})])
    left = rp.apply_review(tmp_path / "d.json", particles, out=tmp_path / "CORRECTED")
    assert list(left) == ["TS_02"]
    assert content(left["TS_02"]) == content(made.corrected())
    assert content(rp.read_particles(tmp_path / "CORRECTED" / "TS_02.xml")) == content(left["TS_02"])
    sure = rp.apply_review([str(tmp_path / "d.json")], particles, accepted_only=True)
    assert content(sure["TS_02"]) == [(1, (1.5, 2.5, 3.5))]

    with pytest.raises(rp.InputError, match="exists"):
        rp.apply_review(tmp_path / "d.json", particles, out=tmp_path / "CORRECTED")
    with pytest.raises(rp.InputError, match="exists"):
        rp.review(arrays, particles, species=radii, voxel_size=13.48, out=tmp_path / "REVIEW")
    with pytest.raises(rp.InputError, match="made on another list"):
        rp.apply_review(tmp_path / "d.json", {"TS_02": particles["TS_01"]})


def test_files(folder: Path) -> None:  # noqa: F811
    (page,) = rp.review(folder / "tomograms", folder / "picks", species=RADII, out=folder / "REVIEW")
    assert [entry["name"] for entry in payload(page)["tomograms"]] == ["TS_01", "TS_02"]
    (page,) = rp.review([folder / "tomograms/TS_02.mrc"], folder / "picks", species=RADII, out=folder / "ONE")
    assert [entry["name"] for entry in payload(page)["tomograms"]] == ["TS_02"]


def test_candidates_dropped_beside_the_lists_and_the_calibration_of_a_run_are_shown(
    tiny_run: Path,
    tmp_path: Path,
    folder: Path,  # noqa: F811
) -> None:
    dropped = picks(5, name="TS_02").particles.with_(extra={"rejected_by": np.array(["size", "edge"])[[0, 0, 1, 0, 1]]})
    rp.write_particles(folder / "picks" / "rejected" / "TS_02.csv", dropped)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(tiny_run / "model.rpk", run)
    name = rp.load_model(run).card.class_names[0]
    calibration.save(run, {name: ClassCalibration((0.8, 0.4), (10, 20), (10, 12), 16)}, ["meta_000"])
    (page,) = rp.review(folder / "tomograms", folder / "picks", model=run, out=folder / "REVIEW")
    shown = payload(page)
    assert [entry["dropped"] and entry["dropped"]["totals"] for entry in shown["tomograms"]] == [
        None,
        {"size": 3, "edge": 2},
    ]
    assert [point["score"] for point in shown["classes"][0]["expected"]] == [0.8, 0.4]


def test_a_model_brings_its_calibration_and_the_page_tells_the_next_call(tiny_run: Path, tmp_path: Path) -> None:
    """Of the run that it is from, or of its card, which goes before; and options do not take it away."""
    run = tmp_path / "it's a run"
    run.mkdir()
    shutil.copy(tiny_run / "model.rpk", run)
    name = rp.load_model(run).species[0]
    calibration.save(run, {name: ClassCalibration((0.8, 0.4), (10, 20), (10, 12), 16)}, ["meta_000"])
    model = rp.load_model(run)
    test = tiny_run / "data" / "test" / "test_000.mrc"
    volume, found = rp.read_volume(test).data, rp.read_particles(tiny_run / "picks" / "test_000.xml", allow_empty=True)

    def expected(given: rp.Model, out: str) -> list[float]:
        (page,) = rp.review({"test_000": volume}, {"test_000": found}, model=given, out=tmp_path / out)
        shown = payload(page)
        assert shown["command"] == {
            "before": "model",
            "flag": "picking.min_scores",
            "after": ".pick(volume)",
            "language": "python",
        }
        next_call = "rp.apply_review('Review_picks_decisions.json', picks, out='CORRECTED')"
        assert shown["decisions"] == {"file": "Review_picks_decisions.json", "next": next_call}
        return [point["score"] for point in shown["classes"][0]["expected"]]

    assert expected(model, "a") == [0.8, 0.4]
    assert expected(model.with_options("picking.min_score=0.3"), "b") == [0.8, 0.4]
    known = {name: ClassCalibration((0.7,), (10,), (9,), 16)}
    card = replace(model.card, provenance=Provenance(calibration=known))
    exported = rp.Model(replace(model.picker, model=replace(model.picker.model, card=card)))
    assert exported.calibration == known
    assert expected(exported, "c") == [0.7]
    assert expected(replace(model, source=None), "d") == []

    (page,) = rp.review(test, tiny_run / "picks", model=model, out=tmp_path / "e")
    shown = payload(page)
    assert shlex.split(shown["command"]["before"])[:4] == ["robpicker", "pick", "--workdir", str(run)]
    assert shown["command"]["after"] == str(test)
    assert str(tiny_run / "picks") in shown["decisions"]["next"]


def test_the_species_of_a_model(tiny_run: Path, tmp_path: Path) -> None:
    model = rp.load_model(tiny_run)
    test = tiny_run / "data" / "test" / "test_000.mrc"
    (page,) = rp.review(test, tiny_run / "picks", model=tiny_run, out=tmp_path / "a")
    volume = rp.read_volume(test).data
    found = rp.read_particles(tiny_run / "picks" / "test_000.xml", allow_empty=True)
    (other,) = rp.review({"test_000": volume}, {"test_000": found}, model=model, out=tmp_path / "b")
    for key in ("classes", "tomograms"):
        ours, theirs = payload(page)[key], payload(other)[key]
        assert [entry["name"] for entry in ours] == [entry["name"] for entry in theirs]
    assert [entry["radius"] for entry in payload(page)["classes"]] == [
        species.radius_vox for species in model.card.data.species
    ]


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({}, "give one of model and species"),
        ({"species": {"a": 50}}, "give voxel_size"),
        ({"species": {"a": 50}, "voxel_size": 10.0, "picks": {"TS_01": rp.Particles.empty()}}, "no picks of TS_02"),
        ({"species": {"a": 50}, "voxel_size": 10.0, "tomograms": {"TS_01": np.zeros((4, 4))}}, r"array \(z, y, x\)"),
    ],
)
def test_what_is_refused(further: dict[str, Any], message: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    given = {"tomograms": arrays, "picks": {name: rp.Particles.empty() for name in arrays}, **further}
    with pytest.raises(rp.InputError, match=message):
        rp.review(given.pop("tomograms"), given.pop("picks"), out=tmp_path / "out", **given)
    with pytest.raises(rp.InputError, match="no file of decisions"):
        rp.apply_review([], {})
    assert not (tmp_path / "out").exists()
