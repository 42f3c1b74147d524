"""The slice viewer: its data, and the viewer itself in a browser."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robpicker_jax.reporting import (
    ReportData,
)
from robpicker_jax.reporting.data import UNCOUNTED
from robpicker_jax.reporting.outcomes import matches_of
from robpicker_jax.reporting.slices import slice_figure
from robpicker_jax.reporting.stored import binned
from robpicker_jax.reporting.viewer import embed_json, encode_slices, viewer_payload
from tests.reporting.browser import Browser
from tests.reporting.report_data import (
    HOSTILE,
    SPECIES,
    make_data,
    make_tomogram,
    page_text,
)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data()


@given(st.lists(st.text(max_size=8) | st.none() | st.dictionaries(st.text("<>&/script!-", max_size=9), st.integers())))
@settings(max_examples=40)
def test_embedded_json_cannot_end_its_element(value: Any) -> None:
    text = embed_json([value, HOSTILE, "\u2028"])
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == [value, HOSTILE, "\u2028"]


def test_slices_show_the_density_bottom_row_last() -> None:
    view = make_tomogram(shape=(10, 40, 64), per_class=2)
    texts, ranges = encode_slices(view.density, 1_000_000)
    assert ranges == [(z, z + 1) for z in range(10)]
    for (low, high), text in zip(ranges, texts, strict=True):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"), float)
        assert image.shape == (40, 64)
        assert np.corrcoef(image[::-1].ravel(), view.density[low:high].mean(0).ravel())[0, 1] > 0.97


@pytest.mark.parametrize("budget", [300_000, 60_000])
def test_slices_keep_to_their_budget(budget: int) -> None:
    density = np.random.default_rng(0).normal(size=(90, 160, 200)).astype(np.float32)
    texts, ranges = encode_slices(density, budget)
    assert sum(map(len, texts)) <= budget
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 90
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


def test_payload_places_particles_in_unbinned_voxels(data: ReportData) -> None:
    view = binned(data.tomograms[0], max_edge=60, max_depth=20)
    payload = viewer_payload(dataclasses.replace(data, tomograms=[view]))["tomograms"][0]
    assert (payload["depth"], payload["height"], payload["width"]) == (32, 96, 112)
    assert payload["from"][0] == 0
    assert payload["to"][-1] == 31
    np.testing.assert_allclose(payload["picks"]["x"], view.picks.positions_vox[:, 0], rtol=0, atol=0)
    np.testing.assert_allclose(payload["truth"]["z"], view.truth.positions_vox[:, 2], rtol=0, atol=0)


_INK = """(() => {
  const canvas = document.getElementById("xy");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let coloured = 0, bright = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const rgb = pixels.slice(i, i + 3);
    coloured += Math.max(...rgb) - Math.min(...rgb) > 60;
    bright += pixels[i] > 40;
  }
  return [coloured, bright];
})()"""


@pytest.mark.slow
def test_viewer_in_a_browser(data: ReportData, tmp_path: Path) -> None:
    page_text(dataclasses.replace(data, label_examples=()), tmp_path / "report")
    log: dict[str, Any] = {}
    with Browser(tmp_path / "browser") as browser:
        browser.open(tmp_path / "report" / "index.html")

        def note(what: str) -> None:
            browser.settle()
            counts = browser.run("['picks', 'truth'].map((key) => Number(document.getElementById('xy').dataset[key]))")
            depth = json.loads(browser.run("document.getElementById('stage').dataset.cursor"))[2]
            log[what] = [*counts, depth]

        note("start")
        log["ink"] = browser.run(_INK)
        browser.choose("all-z", True)
        note("all")
        for threshold in (0.6, 0.9):
            browser.choose("score", threshold)
            note(f"score {threshold}")
        log["table"] = browser.run("document.getElementById('counts').textContent")
        browser.choose("score", 0)
        note("score 0")
        browser.choose("errors-only", True)
        note("errors")
        browser.choose("errors-only", False)
        browser.choose("show-truth", False)
        note("no truth")
        browser.choose("show-truth", True)
        browser.run("document.querySelector('#counts input').click()")
        note("class off")
        browser.choose("all-z", False)
        browser.choose("z", 3)
        note("z 3")
        browser.run("document.getElementById('stage').focus()")
        for key in ("PageUp", "End"):
            browser.press(key)
            note(key)
        browser.choose("tomogram", 1)
        browser.ready()
        note("second")
        assert browser.errors == []
    view = data.tomograms[0]
    matches = matches_of(view, data.species)
    assert view.truth is not None
    assert matches is not None
    assert view.picks.scores is not None

    coloured, bright = log["ink"]
    assert coloured > 300  # overlays
    assert bright > 20_000  # the slice itself
    assert log["all"][:2] == [len(view.picks), len(view.truth)]
    assert 0 < log["start"][0] < len(view.picks)
    for threshold in (0.6, 0.9):
        kept = int((view.picks.scores >= threshold).sum())
        assert log[f"score {threshold}"][0] == kept
        assert 0 < kept < len(view.picks)
    assert log["score 0"] == log["all"]
    passing = view.picks.scores >= 0.9
    for label, (name, *_) in enumerate(SPECIES, start=1):
        picked = int((passing & (view.picks.labels == label)).sum())
        hits = int((passing & (view.picks.labels == label) & (matches >= 0)).sum())
        true = int((view.truth.labels == label).sum())
        precision = f"{hits / picked:.2f}" if picked else "–"
        assert f"{name}{picked}{true}{precision}{hits / true:.2f}" in log["table"]
    wrong = int((matches < 0).sum())
    assert log["errors"][:2] == [wrong, len(view.truth) - (len(view.picks) - wrong)]
    assert log["no truth"][:2] == [len(view.picks), 0]
    first = [int((list_.labels == 1).sum()) for list_ in (view.picks, view.truth)]
    assert log["class off"][:2] == [len(view.picks) - first[0], len(view.truth) - first[1]]
    assert [log[name][2] for name in ("z 3", "PageUp", "End")] == [3, 4, 31]
    assert log["second"] != log["start"]


@pytest.mark.slow
def test_picks_that_the_scores_leave_out_stay_in_the_list_and_out_of_the_counts(tmp_path: Path) -> None:
    """Decisions are about the saved list, which has the picks outside of a mask too; precision does not know them."""
    made, data = make_tomogram(), make_data()
    matches = matches_of(made, data.species)
    assert matches is not None
    matches = np.where((matches < 0) & (np.arange(len(matches)) % 2 == 0), UNCOUNTED, matches)
    view = dataclasses.replace(made, matches=matches)
    page_text(dataclasses.replace(data, tomograms=(view,), label_examples=()), tmp_path / "report")
    with Browser(tmp_path / "browser") as browser:
        browser.open(tmp_path / "report" / "index.html")
        browser.choose("all-z", True)
        browser.choose("score", 0)
        browser.settle()
        assert int(browser.run("document.getElementById('xy').dataset.picks")) == len(view.picks)
        table = browser.run("document.getElementById('counts').textContent")
        browser.choose("errors-only", True)
        browser.settle()
        assert int(browser.run("document.getElementById('xy').dataset.picks")) == int((matches == -1).sum())
        assert browser.errors == []
    assert view.truth is not None
    assert 0 < (matches == UNCOUNTED).sum() < (matches < 0).sum()
    for label, (name, *_) in enumerate(SPECIES, start=1):
        of_class = view.picks.labels == label
        picked, hits = int((of_class & (matches != UNCOUNTED)).sum()), int((of_class & (matches >= 0)).sum())
        assert f"{name}{picked}{int((view.truth.labels == label).sum())}{hits / picked:.2f}" in table


def test_pictures_tell_picks_that_the_scores_leave_out_from_false_ones() -> None:
    data = make_data()
    view = dataclasses.replace(data.tomograms[0], matches=np.full(len(data.tomograms[0].picks), UNCOUNTED))
    legend = slice_figure(data, view).legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert "false pick (0)" in texts
    assert any(text.startswith("pick outside of what is scored (") and not text.endswith("(0)") for text in texts)
