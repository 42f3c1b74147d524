"""Whose picks `init` takes for the annotations of a copick project: people's, with what a review left before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from robpicker_jax.config import CopickConfig
from robpicker_jax.proposal.sources import find_source
from tests.datasets.copick_cases import add, make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three runs that ann alone picked."""
    path = make_project(tmp_path)
    for file in tmp_path.rglob("ben_*.json"):
        file.unlink()
    return path


def chosen(project: Path) -> tuple[object, ...]:
    section: CopickConfig = find_source(project.parent).data.copick
    return section.user, section.session, section.prefer


def test_the_only_annotator_is_named_and_stays_so_when_picks_are_added(project: Path) -> None:
    import copick

    assert chosen(project) == ("ann", "1", ())
    run = copick.from_file(str(project)).get_run("TS_3")
    add(run, "ribosome", "robpicker", [[20.0, 30.0, 40.0]], session="0")
    assert chosen(project) == ("ann", "1", ())
    add(run, "ribosome", "review", [[20.0, 30.0, 40.0]])
    assert chosen(project) == ("ann", "1", ("review/1",))
    (lists,) = (files.class_lists for files in find_source(project.parent).tomograms if files.name == "TS_3")
    assert [path.name for _, path in lists] == ["review_1_ribosome.json"]


def test_of_picks_and_their_review_alone_the_review_counts(project: Path) -> None:
    import copick

    run = copick.from_file(str(project)).get_run("TS_3")
    add(run, "ribosome", "robpicker", [[20.0, 30.0, 40.0]], session="0")
    add(run, "ribosome", "review", [[20.0, 30.0, 40.0]])
    for file in project.parent.rglob("ann_*.json"):
        file.unlink()
    assert chosen(project) == ("review", "1", ())
    for file in project.parent.rglob("review_*.json"):
        file.unlink()
    assert chosen(project) == ("robpicker", "0", ())
