"""Exact search against a brute-force correlation, whatever the tiling and the division of angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.matching import ExactSearch, MapStore, Template, Tiling, ball_mask, search_volume
from robpicker_jax.matching.correlation import tile_shape
from robpicker_jax.matching.search import core_for
from robpicker_jax.matching.tiles import read_box
from robpicker_jax.rotations import binary_wedge, covering
from robpicker_jax.system.errors import InputError
from tests.matching.cases import brute_force, density, planted, standardised, template

pytestmark = pytest.mark.fast

ROTATIONS = random_rotations(3, np.random.default_rng(5))
NOISE = standardised(np.random.default_rng(6).normal(size=(9, 10, 11)) + np.linspace(0, 3, 11))


@pytest.mark.parametrize("edge", [12, 13])
@pytest.mark.parametrize("turns", [False, True])
def test_scores_are_those_of_brute_force(edge: int, turns: bool) -> None:
    made, wedge = template(edge, soft=0.0 if turns else 1.0, turns=turns), binary_wedge(13, (-60, 60))
    given = wedge if edge == 13 else None
    expected = brute_force(NOISE, made, ROTATIONS, given)
    search = ExactSearch(made, ROTATIONS, given, statistics=True)
    maps = search_volume(NOISE, search, Tiling.of((9, 10, 11), 64))
    np.testing.assert_allclose(maps["scores"], expected.max(axis=0), atol=1e-5)
    np.testing.assert_array_equal(maps["angles"], expected.argmax(axis=0))
    np.testing.assert_allclose(maps["mean"], expected.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(maps["deviation"], expected.std(axis=0), atol=1e-4)


@pytest.mark.parametrize(("largest", "workers", "batch"), [(6, 1, 1), (64, 2, 1), (7, 3, 2), (64, 1, 3)])
def test_no_tiling_and_no_division_of_angles_changes_the_maps(largest: int, workers: int, batch: int) -> None:
    whole = search_volume(NOISE, ExactSearch(template(), ROTATIONS, statistics=True), Tiling.of((9, 10, 11), 64))
    divided = ExactSearch(template(), ROTATIONS, statistics=True, workers=workers, batch=batch)
    maps = search_volume(NOISE, divided, Tiling.of((9, 10, 11), largest))
    np.testing.assert_array_equal(maps["angles"], whole["angles"])
    for name in ("scores", "mean"):
        np.testing.assert_allclose(maps[name], whole[name], atol=1e-5)
    np.testing.assert_allclose(maps["deviation"], whole["deviation"], atol=1e-4)


def test_a_planted_template_is_found_at_its_voxel_and_angle() -> None:
    rotations = covering(60.0)
    volume = planted((21, 22, 23), [(10, 11, 9)], rotations[[20]], noise=1e-4)
    maps = search_volume(volume, ExactSearch(template(), rotations), Tiling.of((21, 22, 23), 64))
    assert np.unravel_index(maps["scores"].argmax(), maps["scores"].shape) == (10, 11, 9)
    assert maps["scores"].max() > 0.99
    assert maps["angles"][10, 11, 9] == 20


def test_axes_are_not_mixed_up() -> None:
    """An arm along each axis, of other lengths: turned by no angle it is found as it is, and in no other order of axes."""
    arms = np.zeros((13, 13, 13), np.float32)
    arms[6:8, 6, 6] = arms[6, 6:9, 6] = arms[6, 6, 6:11] = 1
    made = Template("arms", arms, ball_mask(13, 5.0), 10.0, 8.0)
    volume = np.zeros((21, 22, 23), np.float32)
    volume[2:15, 4:17, 5:18] = arms
    maps = search_volume(standardised(volume), ExactSearch(made, np.eye(3)[None]), Tiling.of(volume.shape, 64))
    assert np.unravel_index(maps["scores"].argmax(), volume.shape) == (8, 10, 11)
    assert maps["scores"].max() == pytest.approx(1, abs=1e-4)
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        moved = np.ascontiguousarray(volume.transpose(order))
        other = search_volume(standardised(moved), ExactSearch(made, np.eye(3)[None]), Tiling.of(moved.shape, 64))
        assert other["scores"].max() < 0.9


def test_a_wedge_on_the_template_alone_scores_less_than_one() -> None:
    """The particle without a missing wedge is not the template with one; with the wedge on both they are the same."""
    wedge = binary_wedge(13, (-50, 50))
    whole = planted((21, 22, 23), [(10, 11, 9)], np.eye(3)[None], noise=1e-4)
    seen = np.zeros_like(whole)
    seen[4:17, 5:18, 3:16] = np.fft.ifftn(np.fft.fftn(density()) * np.fft.ifftshift(wedge)).real
    search = ExactSearch(template(), np.eye(3)[None], wedge)
    best = [
        float(search_volume(volume, search, Tiling.of(whole.shape, 64))["scores"][10, 11, 9])
        for volume in (whole, standardised(seen))
    ]
    assert 0.5 < best[0] < 0.98
    assert best[1] == pytest.approx(1, abs=1e-3)


def test_scores_do_not_depend_on_scale_and_offset() -> None:
    search = ExactSearch(template(), ROTATIONS)
    big = np.pad(NOISE, 6, mode="reflect")  # beyond the faces of any volume there are zeros, whatever its offset
    one, other = (
        search_volume(v, search, Tiling.of(big.shape, 64))["scores"][6:-6, 6:-6, 6:-6] for v in (big, 2 * big + 0.5)
    )
    assert one.shape == NOISE.shape
    assert one.std() > 0.05
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_ball_scores_the_same_at_every_angle() -> None:
    ball = ball_mask(13, 3.0, 1.5)
    search = ExactSearch(Template("ball", ball, ball_mask(13, 5.5), 10.0, 6.0), ROTATIONS, statistics=True)
    maps = search_volume(NOISE, search, Tiling.of((9, 10, 11), 64))
    assert maps["deviation"].max() < 0.01


def test_empty_space_has_no_score() -> None:
    volume = np.zeros((16, 16, 40), np.float32)
    volume[..., :12] = np.random.default_rng(0).normal(size=(16, 16, 12))
    maps = search_volume(volume, ExactSearch(template(), ROTATIONS), Tiling.of(volume.shape, 64))
    assert np.abs(maps["scores"]).max() <= 1
    np.testing.assert_array_equal(maps["scores"][..., 20:], 0)


def test_a_stopped_search_goes_on_and_other_settings_begin_anew(tmp_path: Path) -> None:
    tiling = Tiling.of((9, 10, 11), 6)
    search = ExactSearch(template(), ROTATIONS, workers=1)
    whole = search_volume(NOISE, search, tiling)
    seen = []

    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        search_volume(
            NOISE, search, tiling, store=MapStore((9, 10, 11), search.maps, tmp_path, {"a": 1}), on_units=stop
        )
    store = MapStore((9, 10, 11), search.maps, tmp_path, {"a": 1})
    assert len(store.finished) == 2
    seen.clear()
    maps = search_volume(NOISE, search, tiling, store=store, on_units=seen.append)
    assert sum(seen) == (len(tiling.starts) - 2) * len(ROTATIONS)
    np.testing.assert_array_equal(maps["scores"], whole["scores"])
    assert len(MapStore((9, 10, 11), search.maps, tmp_path, {"a": 1}).finished) == len(tiling.starts)
    assert not MapStore((9, 10, 11), search.maps, tmp_path, {"a": 2}).finished
    (tmp_path / "tiles.json").write_text("{")
    assert not MapStore((9, 10, 11), search.maps, tmp_path, {"a": 1}).finished


def test_tiles_that_the_mask_leaves_out_are_not_searched() -> None:
    mask = np.zeros((9, 10, 11), bool)
    mask[:, :, :3] = True
    search = ExactSearch(template(), ROTATIONS)
    seen: list[int] = []
    maps = search_volume(NOISE, search, Tiling.of((9, 10, 11), 6), mask=mask, on_units=seen.append)
    whole = search_volume(NOISE, search, Tiling.of((9, 10, 11), 64))
    np.testing.assert_allclose(maps["scores"][mask], whole["scores"][mask], atol=1e-5)
    np.testing.assert_array_equal(maps["scores"][:, :, 6:], 0)
    np.testing.assert_array_equal(maps["angles"][:, :, 6:], -1)
    assert sum(seen) == len(Tiling.of((9, 10, 11), 6).starts) * len(ROTATIONS)


def test_a_rim_is_not_searched() -> None:
    rim = (slice(2, -2),) * 3
    search = ExactSearch(template(), ROTATIONS)
    whole = search_volume(NOISE, search, Tiling.of((9, 10, 11), 64))
    tiling = Tiling.of((9, 10, 11), 4, rim_vox=2)
    assert tiling.core_zyx == (3, 3, 4)
    maps = search_volume(NOISE, search, tiling)
    np.testing.assert_allclose(maps["scores"][rim], whole["scores"][rim], atol=1e-5)
    np.testing.assert_array_equal(maps["angles"][rim], whole["angles"][rim])
    outside = np.ones((9, 10, 11), bool)
    outside[rim] = False
    assert not maps["scores"][outside].any()
    assert (maps["angles"][outside] == -1).all()


def test_boxes_have_zeros_beyond_the_faces() -> None:
    box = read_box(NOISE, (-2, 3, 8), (5, 4, 6))
    np.testing.assert_array_equal(box[2:, :, :3], NOISE[:3, 3:7, 8:])
    assert not box[:2].any()
    assert not box[:, :, 3:].any()
    assert not read_box(NOISE, (20, 0, 0), (2, 2, 2)).any()


def test_tiles_shrink_until_they_fit_into_memory() -> None:
    search = ExactSearch(template(), ROTATIONS)
    large = core_for(search.cost, (200, 200, 200), None, 100)
    small = core_for(search.cost, (200, 200, 200), 20_000_000, 100)
    assert max(large.core_zyx) == 100
    assert search.cost.bytes(small.core_zyx) <= 20_000_000 < search.cost.bytes(large.core_zyx)
    for tiling in (large, small):
        assert all(a >= b + 12 for a, b in zip(tile_shape(tiling.core_zyx, 13), tiling.core_zyx, strict=True))


@pytest.mark.parametrize("bad", [(np.zeros((5, 5, 6)), None), (np.ones((5, 5, 5)), np.zeros((5, 5, 5)))])
def test_templates_that_make_no_sense_are_refused(bad: tuple[np.ndarray, np.ndarray | None]) -> None:
    box, mask = bad
    with pytest.raises(InputError):
        Template("bad", box.astype(np.float32), np.ones_like(box) if mask is None else mask, 10.0, 5.0)
    with pytest.raises(InputError, match="constant"):
        Template("bad", np.ones((5, 5, 5)), ball_mask(5, 2), 10.0, 5.0)


def test_the_mirror_image_is_worse() -> None:
    volume = planted((15, 15, 15), [(7, 7, 7)], np.eye(3)[None], noise=1e-3)
    rotations = covering(40.0)
    best = [
        search_volume(volume, ExactSearch(made, rotations), Tiling.of((15, 15, 15), 64))["scores"][7, 7, 7]
        for made in (template(), template().mirrored())
    ]
    assert best[0] > best[1] + 0.03
    np.testing.assert_array_equal(template(12).mirrored().density[..., 1:], density(12)[..., :0:-1])
