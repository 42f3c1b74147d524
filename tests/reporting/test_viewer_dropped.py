"""Dropped candidates in the viewer: shown, listed and taken into the list, in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.reporting import SpeciesInfo
from robpicker_jax.reporting.data import Command
from robpicker_jax.reporting.rejected import MOST_SHOWN, rejected_of
from robpicker_jax.reporting.review_page import reviewed_view, write_review_page
from robpicker_jax.reviewing import Edit, read_decisions
from tests.reporting.browser import Browser
from tests.reviewing.review_cases import CLASSES, content, picks

RADIUS = 4.0


def dropped(n: int) -> Particles:
    """Candidates by falling score, at positions with two decimals, as the page keeps them."""
    rng = np.random.default_rng(5)
    return Particles(
        rng.uniform(4, 27, (n, 3)).round(2),
        rng.integers(1, len(CLASSES) + 1, n),
        scores=np.linspace(0.9, 0.1, n),
        extra={"rejected_by": rng.choice(["size", "edge"], n, p=[0.8, 0.2])},
    )


def page_of(candidates: Particles | None, path: Path) -> Path:
    """A review page of 24 picks and of dropped candidates, and of a tomogram without any."""
    noise = np.random.default_rng(1).normal(size=(32, 32, 32)).astype(np.float32)
    views = []
    for given, own in ((picks(), candidates), (picks(6, name="TS_02"), None)):
        rejected = None if own is None else rejected_of(own, CLASSES)
        views.append(reviewed_view(given.name, noise, given.particles, 13.48, rejected))
    species = [SpeciesInfo(name, RADIUS) for name in CLASSES]
    write_review_page(path, "Review", "noise", species, views, Command())
    return path


def text_of(browser: Browser, element: str) -> str:
    """What an element says."""
    found: str = browser.run(f"document.getElementById('{element}').textContent")
    return found


def drawn(browser: Browser, view: str = "xy") -> dict[str, int]:
    """How many picks and dropped candidates a section draws."""
    browser.settle()
    data = browser.run(
        f"(() => {{ const d = document.getElementById('{view}').dataset; return [d.picks, d.dropped]; }})()"
    )
    return {"picks": int(data[0]), "dropped": int(data[1])}


def test_the_filter_shows_candidates_by_limit_and_takes_them_into_the_list(tmp_path: Path) -> None:
    candidates = dropped(40)
    by = candidates.extra["rejected_by"]
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(candidates, tmp_path / "review.html"))
        browser.choose("z", 16)
        before = drawn(browser)
        assert before["dropped"] == 0
        assert f"{(by == 'size').sum()} by size, {(by == 'edge').sum()} by edge" in text_of(browser, "dropped-counts")
        browser.click("show-dropped")
        cut = {limit: np.abs(candidates.positions_vox[:, 2] - 16) < RADIUS for limit in ("", "edge")}
        cut["edge"] &= by == "edge"
        assert drawn(browser) == {"picks": before["picks"], "dropped": int(cut[""].sum())}
        assert browser.run("document.querySelectorAll('.pick').length") == 40
        browser.choose("filter", "dropped:edge")
        assert drawn(browser)["dropped"] == int(cut["edge"].sum())
        order = np.flatnonzero(by == "edge")
        listed = browser.run("[...document.querySelectorAll('.pick .where')].map((cell) => cell.textContent)")
        assert listed == [", ".join(f"{value:.1f}" for value in candidates.positions_vox[k]) for k in order]
        # The class boxes hide candidates too; thresholds do not.
        browser.choose("score", 0.95)
        assert browser.run("document.querySelectorAll('.pick').length") == len(order)
        browser.choose("score", 0)
        browser.run("document.querySelector('#counts input').click()")
        assert browser.run("document.querySelectorAll('.pick').length") == int((candidates.labels[order] != 1).sum())
        browser.run("document.querySelector('#counts input').click()")

        # The first is taken by the keyboard, and the next one comes; the second by its button, after a click on its mark.
        browser.run("document.getElementById('list').focus()")
        browser.press("n")
        assert "dropped by edge (it lies nearer to the volume's edge" in text_of(browser, "selected")
        for key in ("r", "u", "m", "2", "s"):  # what is done to particles leaves a candidate alone
            browser.press(key)
        browser.press("a")
        second = candidates.select([int(order[1])])
        x, y, z = second.positions_vox[0].tolist()
        assert f"at x {x:.1f}, y {y:.1f}, z {z:.1f}" in text_of(browser, "selected")
        browser.choose("advance", False)
        browser.settle()
        browser.click("xy", at=((x + 0.5) / 32, 1 - (y + 0.5) / 32))
        browser.click("accept")
        assert "taken" in text_of(browser, "selected")
        assert browser.run("document.getElementById('accept').disabled")
        assert "2 added" in text_of(browser, "status")
        (path,) = browser.download("save-decisions")
        taken = candidates.select(order[:2])
        edits = [Edit("add", label=label, at=at) for label, at in content(taken)]
        assert read_decisions(path).tomograms["TS_01"].edits == edits
        (path,) = browser.download("save-xml")
        assert content(read_annotations(path)) == content(picks().particles) + content(taken)
        browser.press("z")
        assert not browser.run("document.getElementById('accept').disabled")
        browser.click("show-dropped")
        assert drawn(browser)["dropped"] == 0
        assert browser.run("document.querySelectorAll('.pick').length") == 25

        browser.choose("filter", "dropped")
        browser.choose("tomogram", 1)
        browser.ready()
        assert browser.run("document.getElementById('filter').value") == "all"
        assert browser.run("document.getElementById('dropped-row').hidden")
        assert browser.errors == []


@pytest.mark.slow
def test_of_very_many_the_list_says_how_many_the_page_leaves_out(tmp_path: Path) -> None:
    candidates = dropped(2000)
    by = candidates.extra["rejected_by"]
    left = {limit: max(int((by == limit).sum()) - MOST_SHOWN, 0) for limit in ("size", "edge")}
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(candidates, tmp_path / "review.html"))
        for value, count in (("dropped", sum(left.values())), ("dropped:size", left["size"])):
            browser.choose("filter", value)
            assert f"{count} more of lower scores" in text_of(browser, "list")
        assert browser.errors == []
