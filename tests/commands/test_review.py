"""`review`: its pages, and decisions carried out on the lists that they were made on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands import audit, review
from robpicker_jax.commands.cli import call
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking import calibration
from robpicker_jax.reviewing import Edit, Review, ReviewList, fingerprint, write_decisions
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.volumes import write_mrc
from tests.limits import few_files
from tests.reviewing.review_cases import CLASSES, content, picks

SPECIES = "ribosome:67.4,apoferritin:40.44,particle:54"


def payload(page: Path) -> dict[str, Any]:
    """The data of a page's viewer."""
    found = re.search(r'id="viewer-data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    result: dict[str, Any] = json.loads(found[1])
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tomograms with a list of picks each, in a format with all columns and in one in Å."""
    names = ("ribosome", "apoferritin", "particle")
    (tmp_path / "tomograms").mkdir()
    rng = np.random.default_rng(3)
    for name in ("TS_01", "TS_02"):
        write_mrc(tmp_path / "tomograms" / f"{name}.mrc", rng.normal(size=(32, 32, 32)).astype(np.float32), 13.48)
        given = picks(name=name, rotations=True).particles
        given = given.with_(class_names=np.array(names)[given.labels - 1])
        write_annotations(tmp_path / "picks" / f"{name}.xml", given)
        known = {"voxel_size_angstrom": 13.48, "shape_zyx": (32, 32, 32)}
        write_annotations(tmp_path / "relion" / f"{name}.star", given, fmt="relion5", **known)
    return tmp_path


@pytest.mark.fast
@pytest.mark.parametrize("lists", ["picks", "relion"])
def test_a_page_and_the_lists_that_decisions_leave(folder: Path, lists: str) -> None:
    out, tomograms = folder / "REVIEW", folder / "tomograms"
    arguments = ["--species", SPECIES, "--picks", str(folder / lists)]
    assert call(review.main, [*arguments, "--out", str(out), str(tomograms)]) == 0
    data = payload(out / "review.html")
    assert [entry["name"] for entry in data["tomograms"]] == ["TS_01", "TS_02"]
    np.testing.assert_allclose([kind["radius"] for kind in data["classes"]], [5.0, 3.0, 54 / 13.48])
    shown = data["tomograms"][1]
    reading = {} if lists == "picks" else {"voxel_size_angstrom": shown["voxel"], "shape_zyx": (32, 32, 32)}
    source = read_annotations(next((folder / lists).glob("TS_02.*")), **reading)
    np.testing.assert_array_equal(np.stack([shown["picks"][axis] for axis in "xyz"], axis=1), source.positions_vox)
    assert shown["list"] == fingerprint(source)
    assert shown["truth"] is None

    names = [kind["name"] for kind in data["classes"]]
    given = ReviewList("TS_02", source, names, None, shown["voxel"], tuple(shown["shape"]))
    made = Review(given, [Edit("reject", 0), Edit("reclass", 1, label=3), Edit("add", label=1, at=(1.5, 2.5, 3.5))])
    write_decisions(folder / "d.json", "x", [(made, {names[1]: 0.6})])
    apply = ["--apply", str(folder / "d.json"), "--picks", str(folder / lists)]
    assert call(review.main, [*apply, "--out", str(folder / "CORRECTED")]) == 0
    assert [path.name for path in (folder / "CORRECTED").iterdir()] == ["TS_02.xml"]
    found = read_annotations(folder / "CORRECTED" / "TS_02.xml")
    expected = made.corrected({names[1]: 0.6})
    assert content(found) == content(expected)
    assert len(found) < len(source)
    np.testing.assert_allclose(found.rotations[:-1], expected.rotations[:-1], atol=1e-7)
    np.testing.assert_array_equal(found.cluster_sizes, expected.cluster_sizes)
    assert call(review.main, [*apply, "--out", str(folder / "SURE"), "--accepted-only", "--format", "csv"]) == 0
    sure = read_annotations(folder / "SURE" / "TS_02.csv")
    x, y, z = source.positions_vox[1].tolist()
    assert content(sure) == [(3, (x, y, z)), (1, (1.5, 2.5, 3.5))]


@pytest.mark.fast
def test_more_tomograms_are_reviewed_than_a_process_may_hold_open(folder: Path) -> None:
    for k in range(60):
        write_mrc(folder / "many" / f"TS_{k:03d}.mrc", np.full((4, 5, 6), k, np.float32), 13.48)
        one = Particles(np.array([[2.0, 2.0, 2.0]]), np.array([1]), class_names=np.array(["ribosome"]))
        write_annotations(folder / "lists" / f"TS_{k:03d}.csv", one)
    arguments = ["--species", SPECIES, "--picks", str(folder / "lists"), "--out", str(folder / "REVIEW")]
    with few_files(20):
        assert call(review.main, [*arguments, str(folder / "many")]) == 0
    names = [
        entry["name"] for page in sorted((folder / "REVIEW").glob("*.html")) for entry in payload(page)["tomograms"]
    ]
    assert sorted(names) == [f"TS_{k:03d}" for k in range(60)]


def test_an_audit_writes_a_page_and_its_decisions_make_lists(tiny_run: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", str(tiny_run / "data")
    arguments = ["--workdir", str(tiny_run), "--data", data, "--out", str(out), "--no-correction"]
    assert call(audit.main, arguments) == 0
    shown = payload(out / "review.html")
    (tomogram,) = shown["tomograms"]
    rows = read_annotations(out / "audit.csv")
    assert tomogram["list"] == fingerprint(rows)
    assert tomogram["picks"]["kind"] == rows.extra["kind"].tolist()
    assert shown["command"]["flag"] == "--min-score"
    assert shown["decisions"]["next"].endswith(f"--picks {out / 'audit.csv'} --out CLEANED")
    names = [kind["name"] for kind in shown["classes"]]
    made = Review(ReviewList.of_audit("train_000", rows, names, tomogram["voxel"], tuple(tomogram["shape"])))
    rejected = [index for index, row in enumerate(rows.extra["row"].tolist()) if row][:2]
    for index in rejected:
        made.do(Edit("reject", index))
    write_decisions(tmp_path / "d.json", "x", [(made, {})])
    apply = ["--apply", str(tmp_path / "d.json"), "--picks", str(out / "audit.csv"), "--out", str(tmp_path / "lists")]
    assert call(review.main, apply) == 0
    found = read_annotations(tmp_path / "lists" / "train_000.xml")
    annotated = read_annotations(tiny_run / "data" / "train" / "train_000_objl.xml")
    gone = [content(rows)[index] for index in rejected]
    assert sorted(content(found) + gone) == sorted(content(annotated))
    assert found.scores is None
    lists = ["--lists", str(tiny_run / "data" / "train"), "--out", str(tmp_path / "kept")]
    assert call(review.main, [*apply[:-2], *lists]) == 0
    assert content(read_annotations(tmp_path / "kept" / "train_000.xml")) == content(found)


def test_decisions_made_in_the_report_of_a_run_are_of_its_own_picks(tiny_run: Path) -> None:
    shown = payload(tiny_run / "report" / "index.html")
    (tomogram,) = shown["tomograms"]
    own = read_annotations(tiny_run / "picks" / "test_000.xml", allow_empty=True)
    assert tomogram["list"] == fingerprint(own)
    np.testing.assert_array_equal(tomogram["picks"].get("size", []), [] if not len(own) else own.cluster_sizes)
    assert str(tiny_run) in shown["command"]["before"]
    assert f"--picks {tiny_run / 'picks'} --out CORRECTED" in shown["decisions"]["next"]


@pytest.mark.fast
def test_the_next_command_is_printed_and_carries_out_what_the_pages_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine tomograms take two pages, whose files of decisions lie in one folder; lists are read by an option."""
    monkeypatch.chdir(folder)
    names = [f"TS_{k}" for k in range(9)]
    for name in names:
        write_mrc(folder / "many" / f"{name}.mrc", np.zeros((32, 32, 32), np.float32), 13.48)
        write_annotations(folder / "my lists" / f"{name}.csv", picks(name=name).particles)
    arguments = ["--species", SPECIES, "--picks", "my lists", "--picks-option", "axes=xyz", "--out", "REVIEW"]
    assert call(review.main, [*arguments, "many"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1].strip()
    shown = [payload(folder / "REVIEW" / page) for page in ("review.html", "review_2.html")]
    files = [page["decisions"]["file"] for page in shown]
    assert files == ["Review_my_lists_decisions.json", "Review_my_lists_2_decisions.json"]
    after = "--picks 'my lists' --picks-option axes=xyz --out CORRECTED"
    assert printed == f"robpicker review --apply {files[0]} --apply {files[1]} {after}"
    assert [page["decisions"]["next"] for page in shown] == [
        f"robpicker review --apply {file} {after}" for file in files
    ]
    for file, page in zip(files, shown, strict=True):
        reviews = []
        for entry in page["tomograms"]:
            source = read_annotations(folder / "my lists" / f"{entry['name']}.csv")
            given = ReviewList(entry["name"], source, list(CLASSES), None, 13.48, (32, 32, 32))
            reviews.append((Review(given, [Edit("reject", 0)]), {}))
        write_decisions(folder / file, page["run"], reviews)
    assert call(review.main, shlex.split(printed)[2:]) == 0
    assert {path.stem for path in (folder / "CORRECTED").iterdir()} == set(names)


def test_a_page_of_a_run_says_what_its_picks_are_worth(tiny_run: Path, tmp_path: Path) -> None:
    run, volume = tmp_path / "run", tiny_run / "data" / "test" / "test_000.mrc"
    run.mkdir()
    shutil.copy(tiny_run / "model.rpk", run)
    name = load_trained_model(run).card.class_names[0]
    write_annotations(tmp_path / "test_000.xml", picks(name="test_000").particles)
    common = ["--workdir", str(run), "--picks", str(tmp_path / "test_000.xml"), str(volume)]
    assert call(review.main, [*common, "--out", str(tmp_path / "plain")]) == 0
    assert not any(kind["expected"] for kind in payload(tmp_path / "plain" / "review.html")["classes"])
    entry = ClassCalibration((0.8, 0.4), (10, 20), (10, 12), 16)
    calibration.save(run, {name: entry}, ["meta_000"])
    assert call(review.main, [*common, "--out", str(tmp_path / "known")]) == 0
    found = payload(tmp_path / "known" / "review.html")["classes"]
    points = [(point["score"], point["precision"][0], point["recall"][0]) for point in found[0]["expected"]]
    assert points == [(0.8, 1.0, 0.625), (0.4, 0.6, 0.75)]
    assert not any(kind["expected"] for kind in found[1:])


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--picks", "picks", "tomograms"], "one of --workdir and --species"),
        (["--species", "ribosome", "--picks", "picks", "tomograms"], "ribosome has no radius"),
        (["--species", SPECIES, "--picks", "picks"], "no tomogram"),
        (["--species", SPECIES, "--picks", "picks/TS_02.xml", "tomograms"], "no list of tomogram TS_01"),
        (["--apply", "d.json", "--picks", "picks", "tomograms"], "takes no tomograms"),
        (["--apply", "d.json", "--picks", "picks", "--format", "xls"], "unknown format 'xls'"),
        (["--apply", "d.json", "--apply", "d.json", "--picks", "picks"], "a second review of tomogram TS_01"),
        (["--apply", "empty.json", "--picks", "picks"], "no decision in it"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    further: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    given = ReviewList("TS_01", read_annotations("picks/TS_01.xml"), CLASSES)
    write_decisions(Path("d.json"), "x", [(Review(given, [Edit("reject", 0)]), {})])
    write_decisions(Path("empty.json"), "x", [])
    assert call(review.main, [*further, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
