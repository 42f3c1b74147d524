"""Reviewing in the report's viewer: in a browser, by mouse and keyboard, and read back by our own readers."""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.reporting import SpeciesInfo, TomogramView
from robpicker_jax.reporting.data import Command
from robpicker_jax.reporting.review_page import reviewed_view, write_review_page
from robpicker_jax.reviewing import Edit, Review, ReviewList, read_decisions
from tests.reporting.browser import Browser
from tests.reviewing.review_cases import CLASSES, audit, content, picks

RADII = (5.0, 3.0, 4.0)
SHAPE = (32, 32, 32)


def page_of(given: ReviewList, path: Path, *, second: ReviewList | None = None) -> Path:
    """A review page of one list, and of a second one, with noise for densities."""
    noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    species = [SpeciesInfo(name, radius) for name, radius in zip(CLASSES, RADII, strict=True)]
    views = [reviewed_view(entry.name, noise, entry.particles, 13.48) for entry in (given, second) if entry is not None]
    command = Command("robpicker pick --workdir RUN --out PICKS", after="TS_01.mrc")
    write_review_page(path, "Review: PICKS", "noise", species, views, command)
    return path


def read_back(paths: list[Path], given: ReviewList) -> Particles:
    """A saved list, by our own reader; copick's files are one for each class."""
    labels = {name: label for label, name in enumerate(CLASSES, start=1)}
    parts = [
        read_annotations(path, voxel_size_angstrom=given.voxel_size_angstrom, class_labels=labels) for path in paths
    ]
    return Particles.concatenate(parts)


def in_order(particles: Particles) -> np.ndarray:
    """Indices by position: copick's files do not keep the order of a list."""
    return np.lexsort(particles.positions_vox.round(6).T)


def assert_saved(browser: Browser, given: ReviewList, expected: Particles, tmp_path: Path) -> None:
    """Every format that the page saves holds the list, as our own writers and readers would give it back."""
    for fmt, count in (("xml", 1), ("star", 1), ("csv", 1), ("copick", len(set(expected.labels.tolist())))):
        paths = browser.download(f"save-{fmt}", count)
        assert len(paths) == count
        found = read_back(paths, given)
        ours = tmp_path / ("ours" if fmt == "copick" else f"ours.{fmt}")
        write_annotations(ours, expected, fmt=fmt, voxel_size_angstrom=given.voxel_size_angstrom)
        rewritten = read_back([ours], given)
        theirs, other = in_order(found), in_order(rewritten)
        assert len(found) == len(expected), fmt
        exact = 0.0 if fmt in ("xml", "csv") else 1e-12  # STAR's parser and Å round the last digit
        wanted = expected.positions_vox[in_order(expected)]
        np.testing.assert_allclose(found.positions_vox[theirs], wanted, rtol=exact, atol=0, err_msg=fmt)
        # Our STAR writer keeps six decimals.
        np.testing.assert_allclose(found.positions_vox[theirs], rewritten.positions_vox[other], atol=1e-6, err_msg=fmt)
        np.testing.assert_array_equal(found.labels[theirs], rewritten.labels[other])
        np.testing.assert_allclose(found.scores[theirs], rewritten.scores[other], atol=1e-6)
        for name in ("class_names", "tomograms", "cluster_sizes"):
            mine = getattr(rewritten, name)
            assert (mine is None) == (getattr(found, name) is None), (fmt, name)
            if mine is not None:
                np.testing.assert_array_equal(getattr(found, name)[theirs], mine[other], err_msg=f"{fmt} {name}")
        if expected.rotations is not None:
            np.testing.assert_allclose(found.rotations[theirs], rewritten.rotations[other], atol=1e-6, err_msg=fmt)


def test_twenty_edits_are_made_undone_kept_and_read_back(tmp_path: Path) -> None:
    given = picks(rotations=True)
    page = page_of(given, tmp_path / "review.html")
    with Browser(tmp_path / "browser") as browser:
        browser.open(page)
        browser.choose("order", "number")
        browser.choose("advance", False)
        browser.click("stage", at=(0.02, 0.02))
        edits = edit_twenty_times(browser, given)
        assert decisions(browser)[0] == edits
        for _ in range(3):
            browser.press("z", control=True)
        browser.click("undo")
        browser.press("y")
        edits = edits[:-3]
        kept, final = decisions(browser)
        assert kept == edits
        expected = Review(given, edits).corrected()
        assert content(final.corrected()) == content(expected)

        browser.reload()
        assert decisions(browser)[0] == edits
        browser.click("redo")  # what was undone before the page was loaded again
        assert decisions(browser)[0] == [*edits, Edit("accept", 12)]
        browser.click("undo")
        assert_saved(browser, given, expected, tmp_path)
        assert browser.errors == []


def edit_twenty_times(browser: Browser, given: ReviewList) -> list[Edit]:
    """Twenty edits by keys, buttons and clicks, and what they should be."""
    edits: list[Edit] = []

    def pick(item: int) -> None:
        browser.click(f"pick-{item}")

    for item, key, do in ((0, "a", "accept"), (1, "r", "reject"), (2, "x", "reject"), (3, "u", "undecide")):
        pick(item)
        browser.press(key)
        edits.append(Edit(do, item))
    for item, button, do in ((4, "accept", "accept"), (5, "reject", "reject"), (5, "undecide", "undecide")):
        pick(item)
        browser.click(button)
        edits.append(Edit(do, item))
    for item, label in ((6, 2), (7, 3)):
        pick(item)
        browser.press(str(label))
        edits.append(Edit("reclass", item, label=label))
    pick(8)
    browser.choose("class", 1)
    edits.append(Edit("reclass", 8, label=1))
    # The keyboard alone: to the next particle in the list, to the sections, and there one voxel along x and ten along z.
    browser.run("document.getElementById('list').focus()")
    browser.press("ArrowDown")
    browser.press("a")
    edits.append(Edit("accept", 9))
    browser.run("document.getElementById('stage').focus()")
    browser.press("ArrowRight")
    browser.press("PageUp", shift=True)
    at = cursor(browser)
    x, y, z = given.particles.positions_vox[9]
    assert at == (np.floor(x + 0.5) + 1, y, min(np.floor(z + 0.5) + 10, SHAPE[0] - 1))
    browser.press("m")
    edits.append(Edit("move", 9, at=at))
    browser.press("ArrowUp")
    browser.press("i")
    own = int(given.particles.labels[9])  # the class that is shown: that of the selected particle
    edits.append(Edit("add", label=own, at=cursor(browser)))
    browser.press("2")
    edits.append(Edit("reclass", 24, label=2))
    # The mouse in the sections: a click selects the particle there, Shift and a click adds one.
    pick(10)
    browser.settle()
    x, y, z = given.particles.positions_vox[10]
    share = ((x + 0.5) / SHAPE[2], 1 - (y + 0.5) / SHAPE[1])
    pick(11)
    browser.run(
        f"(() => {{ const z = document.getElementById('z'); z.value = {z}; z.dispatchEvent(new Event('input')); }})()"
    )
    browser.settle()
    browser.click("xy", at=share)
    browser.press("r")
    edits.append(Edit("reject", 10))
    depth = cursor(browser)[2]
    browser.click("xy", at=(0.25, 0.75), shift=True)
    added = last_edit(browser)
    assert added["do"] == "add"
    # half a pixel of the screen is less than a quarter of a voxel here
    np.testing.assert_allclose(added["at"], [0.25 * 32 - 0.5, 0.25 * 32 - 0.5, depth], atol=0.25)
    own = int(given.particles.labels[10])
    edits.append(Edit("add", label=own, at=tuple(added["at"])))
    browser.click("xz", at=(0.5, 0.5), shift=True)
    added = last_edit(browser)
    np.testing.assert_allclose([added["at"][0], added["at"][2]], [15.5, 15.5], atol=0.25)
    edits.append(Edit("add", label=own, at=tuple(added["at"])))
    for item in (12, 13, 14):
        pick(item)
        browser.press("a")
        edits.append(Edit("accept", item))
    assert len(edits) == 20
    return edits


def cursor(browser: Browser) -> tuple[float, ...]:
    """The point that the sections pass through, x y z."""
    browser.settle()
    return tuple(json.loads(browser.run("document.getElementById('stage').dataset.cursor")))


def last_edit(browser: Browser) -> dict:
    """The last edit that the browser keeps."""
    kept = browser.run("Object.entries(localStorage).filter(([key]) => key.startsWith('robpicker'))")
    assert len(kept) == 1
    key, value = kept[0]
    assert key.split("\n")[:3] == ["robpicker", "Review: PICKS", "TS_01"]
    return json.loads(value)["edits"][-1]


def decisions(browser: Browser) -> tuple[list[Edit], Review]:
    """The edits in the file of decisions that the page saves, and the review that they make."""
    (path,) = browser.download("save-decisions")
    entry = read_decisions(path).tomograms["TS_01"]
    path.unlink()
    return list(entry.edits), entry.review_of(picks(rotations=True))


def test_sections_show_rings_of_the_right_radius_and_the_threshold_tells_command_and_list(tmp_path: Path) -> None:
    given, other = picks(60), picks(12, seed=5, name="TS_02")
    page = page_of(given, tmp_path / "review.html", second=other)
    scores, labels = given.particles.scores, given.particles.labels
    with Browser(tmp_path / "browser") as browser:
        browser.open(page)
        for x, y, z in ((16, 16, 16), (9, 22, 12)):
            browser.run("document.getElementById('stage').focus()")
            browser.press("Home")
            set_cursor(browser, (x, y, z))
            for view, axis, plane in (("xy", 2, z), ("yz", 0, x), ("xz", 1, y)):
                distance = np.abs(given.particles.positions_vox[:, axis] - plane)
                radius = np.array(RADII)[labels - 1]
                expected = {
                    i: float(np.sqrt(r**2 - d**2))
                    for i, (r, d) in enumerate(zip(radius, distance, strict=True))
                    if d < r
                }
                found = dict(json.loads(browser.run(f"document.getElementById('{view}').dataset.rings")))
                assert found.keys() == expected.keys()
                np.testing.assert_allclose([found[i] for i in expected], list(expected.values()), atol=1e-9)
        assert "min_scores" not in browser.run("document.getElementById('command').textContent")
        bars = browser.run("[...document.querySelectorAll('#histogram rect')].map((bar) => Number(bar.dataset.count))")
        assert sum(bars) == 60
        browser.choose("score", 0.6)
        browser.choose("score-class", 2)
        browser.choose("score", 0.75)
        least = {CLASSES[0]: 0.6, CLASSES[1]: 0.75, CLASSES[2]: 0.6}
        text = browser.run("document.getElementById('command').textContent")
        words = shlex.split(text)
        assert json.loads(words[words.index("--picking.min_scores") + 1]) == least
        assert words[-1] == "TS_01.mrc"
        chosen = scores >= np.array([0.6, 0.75, 0.6])[labels - 1]
        (path,) = browser.download("save-csv")
        assert content(read_annotations(path)) == content(given.particles.select(chosen))
        assert "the list holds " + str(int(chosen.sum())) in browser.run(
            "document.getElementById('status').textContent"
        )
        (path,) = browser.download("save-decisions")
        entry = read_decisions(path).tomograms["TS_01"]
        assert entry.min_scores == least
        assert content(entry.review_of(given).corrected(entry.min_scores)) == content(given.particles.select(chosen))
        browser.choose("tomogram", 1)
        browser.ready()
        (path,) = browser.download("save-xml")
        assert content(read_annotations(path)) == content(other.particles)
        assert browser.errors == []


def set_cursor(browser: Browser, at: tuple[int, int, int]) -> None:
    """Move the cross by keys alone, in steps of ten and of one."""
    for axis, (up, down) in enumerate((("ArrowRight", "ArrowLeft"), ("ArrowUp", "ArrowDown"), ("PageUp", "PageDown"))):
        steps = round(at[axis] - cursor(browser)[axis])
        key = up if steps > 0 else down
        for _ in range(abs(steps) // 10):
            browser.press(key, shift=True)
        for _ in range(abs(steps) % 10):
            browser.press(key)
    assert cursor(browser) == tuple(map(float, at))


@pytest.mark.slow
def test_after_saving_the_page_shows_the_next_command_with_the_name_of_the_file(tmp_path: Path) -> None:
    def seen() -> bool:
        return bool(browser.run("document.getElementById('next-command').checkVisibility()"))

    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(picks(), tmp_path / "review.html"))
        assert not seen()
        (path,) = browser.download("save-decisions")
        assert path.name == "Review_PICKS_decisions.json"
        assert seen()
        assert browser.run("document.getElementById('next-file').textContent") == path.name
        shown = browser.run("document.getElementById('next-command').textContent")
        assert shown == f"robpicker review --apply {path.name} --picks PICKS --out CORRECTED"
        assert browser.errors == []


def test_a_notebook_is_told_the_call_that_picks_at_the_threshold(tmp_path: Path) -> None:
    given = picks()
    noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    names = ["it's", *CLASSES[1:]]
    species = [SpeciesInfo(name, radius) for name, radius in zip(names, RADII, strict=True)]
    command = Command("model", "picking.min_scores", ".pick(volume)", language="python")
    view = reviewed_view(given.name, noise, given.particles, 13.48)
    write_review_page(tmp_path / "review.html", "Review: picks", "noise", species, [view], command)
    with Browser(tmp_path / "browser") as browser:
        browser.open(tmp_path / "review.html")
        assert browser.run("document.getElementById('command').textContent") == "model.pick(volume)"
        browser.choose("score", 0.5)
        (option,) = ast.parse(browser.run("document.getElementById('command').textContent")).body
        assert isinstance(option, ast.Expr)
        (text,) = [node.value for node in ast.walk(option) if isinstance(node, ast.Constant)]
        key, _, value = str(text).partition("=")
        assert key == "picking.min_scores"
        assert json.loads(value) == dict.fromkeys(names, 0.5)
        assert browser.errors == []


def test_an_audit_is_reviewed_by_its_suggestions(tmp_path: Path) -> None:
    rows = audit()
    with Browser(tmp_path / "browser") as browser:
        browser.open(page_of(rows, tmp_path / "review.html"))
        assert browser.run("document.querySelectorAll('.pick').length") == 5
        browser.run("document.getElementById('list').focus()")
        for _ in range(4):  # by falling score; each decision goes on to the next row
            if browser.run("document.querySelector('.pick[aria-selected=true]') === null"):
                browser.press("n")
            browser.press("s")
        (path,) = browser.download("save-decisions")
        review = read_decisions(path).tomograms["TS_01"].review_of(rows)
        expected = Review(rows)
        for index in (0, 1, 2, 4):
            expected.suggest(index)
        assert review.edits == expected.edits
        (path,) = browser.download("save-xml")
        found = read_annotations(path)
        assert content(found) == content(expected.corrected())
        assert found.scores is None
        assert browser.errors == []


@pytest.mark.slow
def test_without_storage_the_page_says_so_and_takes_decisions_from_a_file(tmp_path: Path) -> None:
    page = page_of(picks(), tmp_path / "review.html")
    text = page.read_text(encoding="utf-8")
    denied = "<script>Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } });</script>"
    page.write_text(text.replace("<main>", denied + "<main>"), encoding="utf-8")
    with Browser(tmp_path / "browser") as browser:
        browser.open(page)
        browser.run("document.getElementById('list').focus()")
        browser.press("n")
        browser.press("r")
        assert "keeps nothing" in browser.run("document.getElementById('kept').textContent")
        (path,) = browser.download("save-decisions")
        browser.press("z")
        assert "0 rejected" in browser.run("document.getElementById('status').textContent")
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        node = browser.call("DOM.querySelector", nodeId=root, selector="#take-decisions")["nodeId"]
        browser.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
        browser.run("new Promise((done) => setTimeout(done, 200))")
        assert "1 rejected" in browser.run("document.getElementById('status').textContent")
        assert browser.errors == []


def test_a_page_shows_some_tomograms_and_not_too_many(tmp_path: Path) -> None:
    view = TomogramView("TS_01", np.zeros((4, 4, 4), np.uint8), None, Particles.empty())
    for views in ([], [view] * 9):
        with pytest.raises(ValueError, match="1 to 8 tomograms"):
            write_review_page(tmp_path / "p.html", "t", "s", [SpeciesInfo("a", 2.0)], views, Command())
