"""Candidates that limits dropped: their counts, what a page keeps of them, and where they are shown."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands import pick, report, review
from robpicker_jax.commands.cli import call
from robpicker_jax.picking.rejection import REASONS
from robpicker_jax.reporting import load_workdir, save_inputs, write_report
from robpicker_jax.reporting.rejected import MOST_SHOWN, rejected_beside, rejected_of, rejected_table
from robpicker_jax.system.errors import InputError
from tests.reporting.report_data import SPECIES, make_data

NAMES = [name for name, *_ in SPECIES]


def candidates(n: int = 900, *, seed: int = 0) -> Particles:
    """Dropped candidates by falling score, most of them by size, none by count."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, len(NAMES) + 1, n)
    reasons = rng.choice(["size", "score", "edge", "mask", "distance"], n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    return Particles(
        rng.uniform([2, 2, 2], [109, 93, 29], (n, 3)),
        labels,
        scores=np.sort(rng.uniform(0.1, 0.9, n))[::-1],
        class_names=np.array(NAMES)[labels - 1],
        extra={"rejected_by": reasons},
    )


class Tables(HTMLParser):
    """The tables of a page by their ids: rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = self.tables[dict(attrs).get("id") or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data


def table(text: str, identity: str = "rejected") -> dict[str, dict[str, int]]:
    """A table of dropped candidates: row → heading → number."""
    head, *rows = Tables(text).tables[identity]
    numbers = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows}
    return {name: dict(zip(head[1:], own, strict=True)) for name, own in numbers.items()}


def payload(page: Path) -> Any:
    """The data of a page's viewer."""
    return json.loads(page.read_text(encoding="utf-8").split('id="viewer-data">')[1].split("</script>")[0])


def test_all_are_counted_and_the_best_of_each_limit_kept() -> None:
    dropped = candidates()
    found = rejected_of(dropped, NAMES)
    counted = Counter(zip(dropped.class_names.tolist(), dropped.extra["rejected_by"].tolist(), strict=True))
    assert {(name, by): n for name, own in found.counts.items() for by, n in own.items()} == counted
    assert list(found.totals) == [reason for reason in REASONS if reason != "count"]
    for reason, total in found.totals.items():
        scores = dropped.scores[dropped.extra["rejected_by"] == reason]
        assert total == len(scores)
        kept = found.shown.scores[found.shown.extra["rejected_by"] == reason]
        np.testing.assert_array_equal(np.sort(kept)[::-1], scores[:MOST_SHOWN])
    assert found.totals["size"] > MOST_SHOWN
    odd = rejected_of(dropped.with_(labels=np.zeros(len(dropped), int), class_names=None), NAMES)
    assert sum(odd.counts["unknown class"].values()) == len(dropped)
    nothing = rejected_of(Particles.empty(), NAMES)
    assert nothing.totals == {}
    assert "No limit dropped" in rejected_table(nothing.counts)


def test_lists_beside_the_picks_are_found_by_the_tomogram_they_mean(tmp_path: Path) -> None:
    dropped = candidates(40)
    assert rejected_beside(tmp_path, "TS_01", NAMES) is None
    write_annotations(tmp_path / "rejected" / "rec_TS_01.csv", dropped)
    for picks in (tmp_path, tmp_path / "TS_01.xml"):
        found = rejected_beside(picks, "TS_01", NAMES)
        assert found is not None
        assert found.totals == rejected_of(dropped, NAMES).totals
        assert sorted(found.shown.scores) == sorted(dropped.scores)
    assert rejected_beside(tmp_path, "TS_02", NAMES) is None
    write_annotations(tmp_path / "rejected" / "TS_02.csv", dropped.with_(extra={}))
    with pytest.raises(InputError, match="no column rejected_by"):
        rejected_beside(tmp_path, "TS_02", NAMES)


def test_those_of_a_copick_project_lie_in_its_overlay(tmp_path: Path) -> None:
    pytest.importorskip("copick", reason="the extra copick is not installed")
    project = tmp_path / "config" / "copick_config.json"
    project.parent.mkdir()
    objects = [{"name": "ribosome", "is_particle": True, "label": 1, "radius": 150}]
    overlay = {"overlay_root": f"local://{tmp_path / 'overlay'}", "overlay_fs_args": {"auto_mkdir": True}}
    about = {"name": "p", "description": "", "version": "1.0", "config_type": "filesystem"}
    project.write_text(json.dumps({**about, "pickable_objects": objects, **overlay}))
    dropped = candidates(10)
    write_annotations(tmp_path / "overlay" / "rejected" / "TS_1.csv", dropped)
    found = rejected_beside(project, "TS_1", NAMES)
    assert found is not None
    assert sum(found.totals.values()) == len(dropped)
    assert rejected_beside(project, "TS_2", NAMES) is None


def test_a_report_keeps_them_and_shows_their_counts(tmp_path: Path) -> None:
    data = make_data()
    own = [rejected_of(candidates(seed=seed), NAMES) for seed in (0, 1)]
    views = [dataclasses.replace(view, rejected=entry) for view, entry in zip(data.tomograms, own, strict=True)]
    data = dataclasses.replace(data, tomograms=views, label_examples=())
    (tmp_path / "config.yaml").write_text("data: {}\n")
    save_inputs(data, tmp_path)
    kept = load_workdir(tmp_path)
    for view, entry in zip(kept.tomograms, own, strict=True):
        assert view.rejected is not None
        assert view.rejected.counts == entry.counts
        np.testing.assert_array_equal(view.rejected.shown.positions_vox, entry.shown.positions_vox)
        np.testing.assert_array_equal(view.rejected.shown.extra["rejected_by"], entry.shown.extra["rejected_by"])
    page = write_report(kept, tmp_path / "report")
    shown = table(page.read_text(encoding="utf-8"))
    for label, name in enumerate(NAMES, start=1):
        assert shown[name].pop("kept") == sum(int((view.picks.labels == label).sum()) for view in views)
        assert shown[name] == {by: sum(entry.counts[name].get(by, 0) for entry in own) for by in shown[name]}
    first = payload(page)["tomograms"][0]["dropped"]
    assert first["totals"] == own[0].totals
    np.testing.assert_allclose(first["x"], own[0].shown.positions_vox[:, 0], atol=0.0051)
    plain = dataclasses.replace(data, tomograms=[dataclasses.replace(view, rejected=None) for view in views])
    text = write_report(plain, tmp_path / "plain").read_text(encoding="utf-8")
    assert "dropped-candidates" not in text


def dropped_columns(batch: Path) -> dict[str, str]:
    """What the table over a batch of one tomogram says of its dropped candidates."""
    with (batch / "summary" / "summary.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return {column: value for column, value in row.items() if column.startswith("dropped_by_")}


def test_a_run_its_batches_and_its_review_pages_show_what_pick_lists(tiny_run: Path, tmp_path: Path) -> None:
    volume = str(tiny_run / "data" / "test" / "test_000.mrc")
    common = ["--workdir", str(tiny_run), "--format", "csv", "--rejected", volume]
    assert call(pick.main, [*common, "--out", str(tmp_path / "picks")]) == 0
    dropped = read_annotations(tmp_path / "picks" / "rejected" / "test_000.csv")
    counted = Counter(zip(dropped.class_names.tolist(), dropped.extra["rejected_by"].tolist(), strict=True))
    of_run = table((tiny_run / "report" / "index.html").read_text(encoding="utf-8"))
    assert {(name, by): n for name, own in of_run.items() for by, n in own.items() if n and by != "kept"} == counted

    assert call(report.main, ["--batch", str(tmp_path / "picks")]) == 0
    text = (tmp_path / "picks" / "summary" / "index.html").read_text(encoding="utf-8")
    of_batch = table(text)
    assert {(name, by): n for name, own in of_batch.items() for by, n in own.items() if n and by != "kept"} == counted
    picked = len(read_annotations(tmp_path / "picks" / "test_000.csv", allow_empty=True))
    each = table(text, "rejected-by-tomogram")["test_000"]
    assert each.pop("kept") == sum(own["kept"] for own in of_batch.values()) == picked
    assert each == Counter(dropped.extra["rejected_by"].tolist())
    assert dropped_columns(tmp_path / "picks") == {f"dropped_by_{by}": str(number) for by, number in each.items()}

    pages = ["--workdir", str(tiny_run), "--picks", str(tmp_path / "picks"), "--out", str(tmp_path / "pages"), volume]
    assert call(review.main, pages) == 0
    (tomogram,) = payload(tmp_path / "pages" / "review.html")["tomograms"]
    assert tomogram["dropped"]["totals"] == each

    # A batch without such lists has no such section; of one that is damaged the page says why.
    (tmp_path / "picks" / "rejected" / "test_000.csv").write_text("x_vox,y_vox,z_vox\n1,2,3\n")
    assert call(report.main, ["--batch", str(tmp_path / "picks")]) == 0
    text = (tmp_path / "picks" / "summary" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"Not counted: test_000: .*no column rejected_by", text)
    assert call(pick.main, [*(word for word in common if word != "--rejected"), "--out", str(tmp_path / "plain")]) == 0
    assert call(report.main, ["--batch", str(tmp_path / "plain")]) == 0
    assert "Dropped candidates" not in (tmp_path / "plain" / "summary" / "index.html").read_text(encoding="utf-8")
    assert dropped_columns(tmp_path / "plain") == {}
