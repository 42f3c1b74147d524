"""What the viewer says of a threshold without truth, against the rules in Python."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.expectation import Rate, expected_at, expected_counts, expected_curve_of_all
from robpicker_jax.reporting import SpeciesInfo
from robpicker_jax.reporting.data import Command
from robpicker_jax.reporting.review_page import reviewed_view, write_review_page
from robpicker_jax.reviewing import ReviewList
from tests.reporting.browser import Browser
from tests.reviewing.review_cases import CLASSES, audit, picks


def calibrated(seed: int, lowest: float) -> ClassCalibration:
    """80 picks of a class on calibration tomograms with 60 particles of it; high scores are right more often."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(lowest, 1, 80))[::-1]
    right = rng.random(80) < np.clip(scores, 0.1, 0.95)
    counts = tuple(range(1, 81)), tuple(np.cumsum(right).tolist())
    return ClassCalibration(tuple(scores.tolist()), *counts, 60)


CALIBRATION = {CLASSES[0]: calibrated(1, 0.1), CLASSES[1]: calibrated(2, 0.5)}
"""Of two of the three classes; that of the second begins above the lowest scores of the list."""


def page_of(given: ReviewList, path: Path, *, known: bool = True) -> Path:
    """A review page with what is expected of its picks."""
    noise = np.random.default_rng(1).normal(size=(32, 32, 32)).astype(np.float32)
    species = [SpeciesInfo(name, 4.0) for name in CLASSES]
    expected = {name: expected_curve_of_all(entry) for name, entry in CALIBRATION.items()} if known else None
    view = reviewed_view(given.name, noise, given.particles, 13.48)
    write_review_page(path, "Review", "noise", species, [view], Command(), expected=expected)
    return path


def rows(browser: Browser) -> list[list[str]]:
    """The table of what is expected, without its head, and the score that each row was seen at."""
    found: list[list[str]] = browser.run(
        "[...document.querySelectorAll('#expectations tr')].slice(1)"
        ".map((row) => [...row.cells].map((cell) => cell.textContent).concat(row.dataset.score))"
    )
    return found


def test_rates_and_counts_at_a_threshold_are_those_of_the_expectation(tmp_path: Path) -> None:
    given = picks(90)
    scores, labels = given.particles.scores, given.particles.labels
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(given, tmp_path / "review.html"))
        for threshold in (None, 0.45, 0.7, 0.985):
            if threshold is not None:
                browser.choose("score", threshold)
            shown = rows(browser)
            assert [row[0] for row in shown] == list(CLASSES[:2])
            for label, (name, precision, recall, right, there, score) in enumerate(shown, start=1):
                entry, own = CALIBRATION[name], scores[labels == label]
                least = threshold
                if least is None:  # the highest calibrated score that all picks of the list reach
                    below = [value for value in entry.thresholds if value <= own.min()]
                    least = max(below, default=-np.inf)
                point = expected_at(entry, least)
                assert point is not None
                assert point.recall is not None
                assert float(score) == point.threshold
                for text, rate in ((precision, point.precision), (recall, point.recall)):
                    assert text == f"{rate.value:.2f}{rate.low:.2f}–{rate.high:.2f}"
                counts = expected_counts(given.particles, CALIBRATION, CLASSES, {name: least})
                count = counts[name].right if name in counts else None
                assert right == ("–" if count is None else f"{count.value:.0f}{count.low:.0f}–{count.high:.0f}")
                seen = int((own >= point.threshold).sum()) or int((own >= least).sum())
                rate, right_ones = point.particles_per_pick, count or Rate(0.0, 0.0, 0.0)
                assert rate is not None
                particles = [  # no fewer than are right
                    max(seen * each, own_right)
                    for each, own_right in zip(astuple(rate), astuple(right_ones), strict=True)
                ]
                assert there == ("{:.0f}{:.0f}–{:.0f}".format(*particles) if seen else "–")
        lines = browser.run("document.querySelectorAll('#curves path').length")
        assert lines == 4  # precision and recall of two classes
        browser.choose("score-class", 2)
        kinds = browser.run("[...document.querySelectorAll('#curves path')].map((path) => path.classList.value)")
        assert sorted(kinds) == ["band", "band", "precision", "recall"]
        assert CLASSES[1] in browser.run("document.getElementById('curves').ariaLabel")
        assert browser.errors == []


def test_the_curve_steps_where_the_rates_do(tmp_path: Path) -> None:
    given = picks(90)
    scores = given.particles.scores
    entry = CALIBRATION[CLASSES[0]]
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(given, tmp_path / "review.html"))
        browser.choose("score-class", 1)
        text = browser.run("document.querySelector('#curves path.precision').getAttribute('d')")
        corners = np.array([part.split() for part in text.replace("L", "M").split("M")[1:]], float)
        drawn_scores = scores.min() + corners[:, 0] / 48 * (scores.max() - scores.min())
        drawn = (48 - corners[:, 1]) / 46
        for at in np.linspace(scores.min() + 0.01, scores.max() - 0.01, 23).tolist():
            point = expected_at(entry, at)
            assert point is not None
            assert drawn[np.flatnonzero(drawn_scores >= at)[0]] == pytest.approx(point.precision.value, abs=2e-3)


@pytest.mark.parametrize("case", ["an audit", "no scores", "no calibration"])
def test_nothing_is_said_where_nothing_is_known(case: str, tmp_path: Path) -> None:
    given = audit() if case == "an audit" else picks()
    if case == "no scores":
        given = ReviewList("TS_01", given.particles.with_(scores=None), CLASSES, None, 13.48, (32, 32, 32))
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(given, tmp_path / "review.html", known=case != "no calibration"))
        assert browser.run("document.getElementById('expected').hidden")
        assert browser.errors == []


def test_the_page_holds_a_point_for_a_score_and_keeps_its_digits(tmp_path: Path) -> None:
    text = page_of(picks(), tmp_path / "review.html").read_text(encoding="utf-8")
    data = json.loads(text.split('id="viewer-data">')[1].split("</script>")[0])
    held = data["classes"][0]["expected"]
    assert [point["score"] for point in held] == list(CALIBRATION[CLASSES[0]].thresholds)
    assert data["classes"][2]["expected"] == []
