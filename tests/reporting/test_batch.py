"""The summary of a batch: numbers against the lists, what stands out against what was planted, memory's bound."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import binomtest

from robpicker_jax.annotations import Particles
from robpicker_jax.commands import pick, report, segment
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.models.model_file import save_model
from robpicker_jax.picking import calibration
from robpicker_jax.picking.finished import Finished, WrittenClass, entries
from robpicker_jax.picking.inference import MemoryBound
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.picker import PICKERS
from robpicker_jax.reporting import batch
from robpicker_jax.volumes import open_volume, write_mrc
from tests.datasets.copick_cases import make_project
from tests.tiny import untrained

COUNTS = [12, 9, 11, 10, 55, 12, 8, 10]
"""Picks of each tomogram; the fifth has far more than the others."""
ODD_SPECTRUM = 2


class Planted:
    """Picks as many particles as the tomogram's name says; the first half of class a, the others of class b."""

    class_names = ("a", "b")
    data = DataConfig()
    voxel_size_angstrom = None
    fingerprint = "planted"

    def tiles(self, shape_zyx: object) -> int:
        return 1

    def memory(self, shape_zyx: object, *, resident_bytes: int = 0) -> MemoryBound:
        return MemoryBound(host=1, device=0, shared=True)

    def pick(self, tomogram: object, on_tiles: object = None, *, mask: object = None) -> Particles:
        count = COUNTS[int(tomogram.name.split("_")[1])]  # type: ignore[attr-defined]
        labels = np.where(np.arange(count) < count // 2, 1, 2)
        names = np.array(["", "a", "b"])[labels]
        return Particles(np.full((count, 3), 4.0), labels, scores=np.where(labels == 1, 0.9, 0.4), class_names=names)

    def with_min_scores(self, min_scores: object) -> Planted:
        return self


class Limited(Planted):
    """The same with smallest scores, which it tells; its scores are spread out."""

    def __init__(self, smallest_scores: Sequence[float] = (0.0, 0.0)) -> None:
        self.smallest_scores = smallest_scores

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"limited {self.smallest_scores}"

    def pick(self, tomogram: object, on_tiles: object = None, *, mask: object = None) -> Particles:
        scores = np.tile(np.arange(1, 21) / 20 - 0.0123456789, 2)
        labels = np.repeat([1, 2], 20)
        found = Particles(np.full((40, 3), 4.0), labels, scores=scores, class_names=np.array(["", "a", "b"])[labels])
        return found.select(scores >= np.array([0, *self.smallest_scores])[labels])

    def with_min_scores(self, min_scores: Sequence[float]) -> Limited:
        return Limited(min_scores)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight volumes of white noise, one of them blurred."""
    folder, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    for index in range(len(COUNTS)):
        density = rng.normal(size=(20, 40, 44))
        density = ndimage.gaussian_filter(density, 1.5) if index == ODD_SPECTRUM else density
        write_mrc(folder / f"t_{index}.mrc", density.astype(np.float32), 10.0)
    return folder


@pytest.mark.parametrize("further", [(), ("--together",), ("--format", "xml")])
def test_counts_scores_and_what_stands_out(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: tuple[str, ...]
) -> None:
    monkeypatch.setitem(PICKERS, "planted", lambda source, overrides: Planted())
    out = tmp_path / "picks"
    (volumes / "t_9.mrc").write_bytes(b"no volume") if not further else None
    common = ["--picker", "planted", "--workdir", str(volumes), "--out", str(out), "--skip-bad", *further]
    try:
        assert call(pick.main, [*common, str(volumes)]) == 0
    finally:
        (volumes / "t_9.mrc").unlink(missing_ok=True)
    assert call(report.main, ["--batch", str(out)]) == 0
    with (out / "summary" / "summary.csv").open(encoding="utf-8") as file:
        rows = {row["tomogram"]: row for row in csv.DictReader(file)}
    left_out = [] if further else ["t_9"]
    assert list(rows) == [f"t_{index}" for index in range(len(COUNTS))] + left_out
    assert [name for name, row in rows.items() if row["state"] == "left out" and row["note"]] == left_out
    for index, count in enumerate(COUNTS):
        row = rows[f"t_{index}"]
        assert row["state"] == "finished"
        assert (row["z"], row["y"], row["x"], row["voxel_size_angstrom"]) == ("20", "40", "44", "10")
        assert int(row["picks_total"]) == count
        assert [int(row[f"picks_{name}"]) for name in "ab"] == [count // 2, count - count // 2]
        if not further:
            assert (row["median_score_a"], row["median_score_b"]) == ("0.9", "0.4")
    unusual = {name: row["unusual"] for name, row in rows.items() if row["unusual"]}
    assert unusual == {"t_2": "spectrum unlike the others'", "t_4": "many picks"}
    page = (out / "summary" / "index.html").read_text(encoding="utf-8")
    assert len(re.findall("data:image/jpeg", page)) == len(COUNTS)
    assert "<dt>t_2</dt><dd>spectrum unlike the others&#x27;</dd><dt>t_4</dt><dd>many picks</dd>" in page
    assert ("<dt>t_9</dt><dd>left out; " in page) == bool(left_out)
    assert "http" not in page.replace("http-equiv", "")


def test_class_maps_are_counted_and_left_out_tomograms_named(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`segment` leaves out a volume without a header, and one whose voxels turn out to be no numbers."""
    save_model(tmp_path / "model.rpk", untrained(("a", "b")))
    given = tmp_path / "in"
    for name in ("t_0", "t_1"):
        write_mrc(given / f"{name}.mrc", np.random.default_rng(1).normal(size=(16, 18, 20)).astype(np.float32), 10.0)
    (given / "t_1.mrc").write_bytes((given / "t_1.mrc").read_bytes()[:-4] + np.array(np.nan, "<f4").tobytes())
    (given / "t_2.mrc").write_bytes(b"no volume")
    out = tmp_path / "maps"
    arguments = ["--model", str(tmp_path / "model.rpk"), "--out", str(out), "--skip-bad", str(given)]
    assert call(segment.main, arguments) == 0
    assert "1 tomogram segmented, 2 left out" in capsys.readouterr().out
    with open_volume(out / "t_0_classes.mrc") as reader:
        labels = reader.read(dtype=np.uint8)
    Finished(out, "segment", {}).begin("t_3", TomogramFiles("t_3", "", volumes / "t_3.mrc"), [out / "t_3_classes.mrc"])
    assert batch.batch_verb(out) == "segment"
    summary = batch.summarised("segment", list(batch.batch_rows(out, "segment")))
    assert [(row.name, row.state) for row in summary.rows] == [
        ("t_0", "finished"),
        ("t_1", "left out"),
        ("t_2", "left out"),
        ("t_3", "not finished"),
    ]
    assert "NaN" in summary.rows[1].note
    assert "t_2.mrc" in summary.rows[2].note
    counts = {f"class {label}": int((labels == label).sum()) for label in (1, 2)}
    assert summary.rows[0].counts == {name: count for name, count in counts.items() if count}
    batch.write_table(summary, tmp_path / "summary.csv")
    assert (tmp_path / "summary.csv").read_text().splitlines()[2].startswith("t_1,left out,")


def test_a_large_volume_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 planes the middle nine are read whole, and a box for the spectrum."""
    write_mrc(tmp_path / "t.mrc", np.zeros((200, 300, 280), np.int8), 10.0)
    write_mrc(tmp_path / "t_classes.mrc", np.zeros((2, 2, 2), np.int8), 10.0)
    Finished(tmp_path, "segment", {}).add("t", TomogramFiles("t", "", tmp_path / "t.mrc"), [tmp_path / "t_classes.mrc"])
    sizes = []
    before = batch.VolumeReader.read

    def counted(self: batch.VolumeReader, *arguments: object, **options: object) -> np.ndarray:
        found = before(self, *arguments, **options)  # type: ignore[arg-type]
        sizes.append(found.size)
        return found

    monkeypatch.setattr(batch.VolumeReader, "read", counted)
    (row,) = batch.batch_rows(tmp_path, "segment")
    assert sorted(sizes)[-2:] == [9 * 300 * 280, 64 * 256 * 256]
    assert row.thumbnail is not None
    assert len(row.thumbnail) < 20_000


def test_expected_counts_are_those_of_the_calibration(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of class a 8 of 10 picks were right, and 8 of 16 particles found; class b was not calibrated."""
    monkeypatch.setitem(PICKERS, "planted", lambda source, overrides: Planted())
    out, run = tmp_path / "picks", tmp_path / "run"
    run.mkdir()
    entry = calibration.ClassCalibration((0.9, 0.2), (10, 40), (8, 8), 16)
    calibration.save(run, {"a": entry}, ["t"])
    assert (
        call(pick.main, ["--picker", "planted", "--workdir", str(volumes), "--out", str(out), str(volumes / "t_0.mrc")])
        == 0
    )
    assert call(report.main, ["--batch", str(out), "--calibration", str(run), "--min-score", "0.4"]) == 0
    with (out / "summary" / "summary.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["expected_right_a"], row["expected_particles_a"]) == ("4.8", "9.6")
    interval = binomtest(8, 10).proportion_ci(0.95, method="exact")
    assert float(row["expected_right_low_a"]) == pytest.approx(6 * interval.low, rel=1e-3)
    of_each = [binomtest(8, trials).proportion_ci(0.975, method="exact") for trials in (10, 16)]
    assert float(row["expected_particles_low_a"]) == pytest.approx(6 * of_each[0].low / of_each[1].high, rel=1e-3)
    assert float(row["expected_particles_high_a"]) == pytest.approx(6 * of_each[0].high / of_each[1].low, rel=1e-3)
    assert "expected_right_b" not in row


@pytest.mark.parametrize("fmt", ["csv", "xml", "star"])
def test_expected_counts_are_those_at_the_scores_that_pick_kept(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    """`--thresholds` keeps each class from another score; the report takes these from the records, class by class."""
    monkeypatch.setitem(PICKERS, "limited", lambda source, overrides: Limited())
    out, run = tmp_path / "picks", tmp_path / "run"
    run.mkdir()
    low, high = (float(k / 20 - 0.0123456789) for k in (9, 15))  # each is a pick's score, to the last digit
    of_a = calibration.ClassCalibration((0.9, low, 0.1), (10, 20, 400), (9, 16, 20), 20)
    of_b = calibration.ClassCalibration((high, 0.3, 0.1), (10, 20, 400), (8, 9, 10), 10)
    calibration.save(run, {"a": of_a, "b": of_b}, ["t"])
    arguments = ["--picker", "limited", "--workdir", str(run), "--thresholds", "best", "--format", fmt]
    assert call(pick.main, [*arguments, "--out", str(out), str(volumes / "t_0.mrc")]) == 0

    def reported(*further: str) -> dict[str, float]:
        assert call(report.main, ["--batch", str(out), "--calibration", str(run), *further]) == 0
        with (out / "summary" / "summary.csv").open(encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        return {name: float(row[f"expected_right_{name}"]) for name in "ab"}

    assert reported() == reported("--min-score", "0.1") == {"a": pytest.approx(12 * 0.8), "b": pytest.approx(6 * 0.8)}
    assert reported("--min-score", "0.6") == {"a": pytest.approx(8 * 0.9), "b": pytest.approx(6 * 0.8)}


def test_pickers_tell_the_smallest_scores_of_their_classes() -> None:
    model = ModelPicker(untrained(("a", "b"), min_score=0.2, min_scores={"b": 0.4}))
    assert list(model.smallest_scores) == [0.2, 0.4]
    assert list(model.with_min_scores([0.5, 0.0]).smallest_scores) == [0.5, 0.0]


def test_a_damaged_record_tells_nothing_of_its_classes(tmp_path: Path) -> None:
    records = Finished(tmp_path, "pick", {}, {"a": WrittenClass("ribosome", 0.5)})
    (tmp_path / "t.csv").write_text("x")
    records.add("t", TomogramFiles("t", "", tmp_path / "t.csv"), [tmp_path / "t.csv"])
    (entry,) = entries(tmp_path, "pick")
    assert entry.classes == {"a": WrittenClass("ribosome", 0.5)}
    path = tmp_path / ".finished" / "pick" / "t.json"
    record = json.loads(path.read_text())
    for damaged in ([1], {"a": 3}, {"a": {"species": 3, "min_score": "x"}}, None):
        path.write_text(json.dumps(record | {"classes": damaged}))
        (entry,) = entries(tmp_path, "pick")
        assert entry.classes.get("a", WrittenClass(None)) == WrittenClass(None)


def test_a_folder_without_a_batch_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(report.main, ["--batch", str(tmp_path)]) == 2
    assert "holds no records of a batch" in capsys.readouterr().err
    assert call(report.main, ["--batch", str(tmp_path), "--workdir", str(tmp_path)]) == 2


def test_picks_in_a_copick_project_are_summarised_by_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project's objects are called a little otherwise than the picker's classes; its overlay holds everything."""
    project = make_project(tmp_path)

    class Ours(Limited):
        class_names = ("apoferritin", "ribosome")

        @property
        def calibration(self) -> dict[str, calibration.ClassCalibration]:
            return {}

        def with_min_scores(self, min_scores: Sequence[float]) -> Ours:
            return Ours(min_scores)

    monkeypatch.setitem(PICKERS, "ours", lambda source, overrides: Ours((0.5, 0.0)))
    run = tmp_path / "run"
    run.mkdir()
    calibration.save(run, {"apoferritin": calibration.ClassCalibration((0.5, 0.1), (10, 20), (8, 9), 10)}, ["t"])
    assert call(report.main, ["--batch", str(project)]) == 2
    assert "a folder, or a copick_config.json" in " ".join(capsys.readouterr().err.split())
    assert call(pick.main, ["--picker", "ours", "--workdir", str(run), "--out", str(project), str(project)]) == 0
    assert call(report.main, ["--batch", str(project), "--calibration", str(run)]) == 0
    summary = tmp_path / "overlay" / "summary"
    assert str(summary / "summary.csv") in capsys.readouterr().out.replace("\n", "")
    with (summary / "summary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["tomogram"], row["state"], row["note"]) for row in rows] == [
        (f"TS_{k}", "finished", "") for k in (1, 2, 3)
    ]
    for row in rows:
        assert (row["z"], row["y"], row["x"], row["voxel_size_angstrom"]) == ("8", "10", "12", "10")
        assert (row["picks_apo-ferritin"], row["picks_ribosome"]) == ("10", "20")
        assert float(row["expected_right_apo-ferritin"]) == pytest.approx(8)
    assert len(re.findall("data:image/jpeg", (summary / "index.html").read_text(encoding="utf-8"))) == 3
    assert call(report.main, ["--batch", str(project), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / "summary.csv").is_file()
