"""Dropped candidates and the limit that dropped each, against the filters one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.picking.rejection import REASONS, rejected_by


def test_each_limit_is_named_and_the_first_counts() -> None:
    #            kept          size         score        edge         mask          near kept     size and score
    positions = [
        [20, 20, 20],
        [30, 9, 20],
        [9, 30, 20],
        [1, 20, 20],
        [35, 35, 35],
        [22, 20, 20],
        [9, 9, 9],
        [9, 20, 30],
    ]
    picks = Particles(
        positions,
        [1, 1, 2, 1, 1, 2, 2, 1],
        scores=[0.9, 0.8, 0.3, 0.8, 0.7, 0.65, 0.2, 0.15],
        cluster_sizes=[50, 4, 90, 50, 50, 90, 4, 50],
    )
    mask = np.ones((40, 40, 40), bool)
    mask[30:, 30:, 30:] = False
    found = rejected_by(
        picks,
        mask.shape,
        min_cluster_vox=[5, 9],
        min_score=[0.1, 0.5],
        edge_vox=3,
        mask=mask,
        min_distance_vox=[4, 6],
        max_picks=1,
    )
    assert found.tolist() == ["", "size", "score", "edge", "mask", "distance", "size", "count"]
    assert set(found) - {""} == set(REASONS)
    # What a limit has dropped keeps no neighbour away.
    assert rejected_by(
        picks.select([3, 5]),
        mask.shape,
        min_cluster_vox=[1, 1],
        min_score=[0, 0],
        edge_vox=3,
        min_distance_vox=[99, 99],
    ).tolist() == ["edge", ""]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 8), st.floats(0, 12), st.none() | st.integers(1, 20))
def test_what_is_kept_is_what_filters_one_by_one_keep(
    seed: int, edge: float, distance: float, most: int | None
) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 40))
    scores = np.sort(rng.uniform(0, 1, count))[::-1]
    sizes = rng.integers(1, 30, count)
    positions = rng.uniform(-0.4, 31.4, (count, 3))
    picks = Particles(positions, rng.integers(1, 3, count), scores=scores, cluster_sizes=sizes)
    mask = rng.random((32, 32, 32)) < 0.8
    found = rejected_by(
        picks,
        mask.shape,
        min_cluster_vox=[8, 12],
        min_score=[0.2, 0.4],
        edge_vox=edge,
        mask=mask,
        min_distance_vox=[distance, distance],
        max_picks=most,
    )
    kept: list[int] = []
    for index in range(count):
        label, place = picks.labels[index], positions[index]
        fits = sizes[index] >= (8, 12)[label - 1] and scores[index] >= (0.2, 0.4)[label - 1]
        fits &= bool(np.all((place >= edge) & (place <= 31 - edge))) or edge == 0
        x, y, z = np.clip(np.floor(place + 0.5).astype(int), 0, 31)
        fits &= bool(mask[z, y, x])
        if fits and all(np.linalg.norm(place - positions[other]) >= distance for other in kept):
            kept.append(index)
    assert np.flatnonzero(found == "").tolist() == kept[:most]


def test_pick_lists_what_it_dropped(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = str(tiny_run / "data" / "test" / "test_000.mrc")
    common = ["--workdir", str(tiny_run), "--format", "csv", "--picking.min_score", "0.5", "--picking.edge_vox", "4"]
    assert call(pick.main, [*common, "--out", str(tmp_path / "plain"), volume]) == 0
    capsys.readouterr()
    assert call(pick.main, [*common, "--out", str(tmp_path / "out"), "--rejected", volume]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "test_000.csv").read_bytes() == (tmp_path / "plain" / "test_000.csv").read_bytes()
    dropped = read_annotations(tmp_path / "out" / "rejected" / "test_000.csv")
    reasons = dropped.extra["rejected_by"]
    assert len(dropped) > 0
    assert set(reasons) <= set(REASONS)
    assert (dropped.scores[reasons == "score"] < 0.5).all()
    for reason in set(reasons):
        assert f"{(reasons == reason).sum()} by {reason}" in said
    # Finished with this list, and without it no longer.
    assert call(pick.main, [*common, "--out", str(tmp_path / "out"), "--rejected", volume]) == 0
    assert "finished already" in capsys.readouterr().out
    (tmp_path / "out" / "rejected" / "test_000.csv").unlink()
    assert call(pick.main, [*common, "--out", str(tmp_path / "out"), "--rejected", volume]) == 0
    assert (tmp_path / "out" / "rejected" / "test_000.csv").exists()
