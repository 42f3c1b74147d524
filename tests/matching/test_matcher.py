"""Several templates in one tomogram, corrections and guards, and the real microtubules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy

from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.matching import (
    ExactSearch,
    Extraction,
    MapStore,
    Matcher,
    MatchSettings,
    Template,
    TemplateRecipe,
    Tiling,
    ball_mask,
    find_peaks,
    search_volume,
)
from robpicker_jax.matching.noise import filtered, phase_randomised, radially_filtered, whitening_profile
from robpicker_jax.matching.tiles import kept_core
from robpicker_jax.rotations import TiltScheme, covering
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume
from tests.matching.cases import planted, standardised, template

pytestmark = pytest.mark.fast

SHAPE = (20, 20, 44)
SCORED = (slice(5, -5),) * 3
"""Where scores are needed: where picks may lie, 6 voxels from the faces, and the voxels around."""
ONES = np.ones((20, 20, 100), np.float32)
VOXELS = [(10, 10, 9), (9, 10, 33)]
SETTINGS = MatchSettings(step_deg=40.0, search="exact", tilt_range_deg=None)
PICKS = Extraction(5.0, cutoff="none", max_picks=2, edge_vox=6)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    """Two blobs, and between them a bead: a ball five times as dense."""
    data = planted(SHAPE, VOXELS, covering(40.0)[[5, 77]], noise=0.1)
    data[3:16, 3:16, 14:27] += 5 * ball_mask(13, 3.0)
    return standardised(data)


def test_each_template_gives_a_class(volume: np.ndarray) -> None:
    bead = Template("bead", ball_mask(13, 3.0), ball_mask(13, 5.0), 10.0, 6.0, symmetry="O")
    one = Extraction(5.0, cutoff="none", max_picks=1, edge_vox=6)
    found = Matcher([template(), bead], SETTINGS, [PICKS, one]).match(volume).particles
    assert sorted(found.class_names.tolist()) == ["bead", "blob", "blob"]
    assert sorted(found.labels.tolist()) == [1, 1, 2]
    assert (np.diff(found.scores) <= 0).all()
    blobs = found.select(found.labels == 1)
    blobs = blobs.select(np.argsort(blobs.positions_vox[:, 0]))
    np.testing.assert_allclose(blobs.positions_vox, [[9, 10, 10], [33, 10, 9]], atol=0.3)
    assert rotation_angle_deg(blobs.rotations, covering(40.0)[[5, 77]]).max() < 6
    np.testing.assert_allclose(found.select(found.labels == 2).positions_vox, [[20, 9, 9]], atol=0.3)


def exact_scores(volume: np.ndarray, made: Template, rotations: np.ndarray) -> np.ndarray:
    return search_volume(volume, ExactSearch(made, rotations), Tiling.of(SHAPE, 64))["scores"]


def inside_faces(edge: int) -> np.ndarray:
    inside = np.zeros(SHAPE, bool)
    inside[edge:-edge, edge:-edge, edge:-edge] = True
    return inside


def test_noise_correction_subtracts_the_exact_scores_of_as_many_rotations(volume: np.ndarray) -> None:
    """The point group thins the rotations of the random template as it does those of the template."""
    made = replace(template(), symmetry="D2")
    rotations = covering(40.0, "D2")
    assert len(rotations) < len(covering(40.0)) / 3
    settings = replace(SETTINGS, noise_correction=True, refine=False)
    match = Matcher([made], settings, [PICKS]).match(volume).templates[0]
    own = exact_scores(volume, made, rotations)
    random = exact_scores(volume, phase_randomised(made), rotations)
    expected = own - random + random[inside_faces(6)].mean()
    np.testing.assert_allclose(match.scores[SCORED], expected[SCORED], atol=1e-5)
    picked = np.rint(match.particles.positions_vox[:, ::-1]).astype(int)
    raised = match.particles.scores - expected[tuple(picked.T)]  # positions between voxels raise scores
    assert ((raised > -1e-5) & (raised < 0.1)).all()


def test_the_mirror_image_is_scored_beside_the_template(volume: np.ndarray) -> None:
    match = Matcher([template()], replace(SETTINGS, mirror=True, refine=False), [PICKS]).match(volume).templates[0]
    best = []
    for made in (template(), template().mirrored()):
        scores = exact_scores(volume, made, covering(40.0))
        peaks = find_peaks(scores, Extraction(5.0, cutoff="none", edge_vox=6, max_picks=50))
        best.append(peaks.scores.mean())
    assert match.mirrored == pytest.approx(best[1] / best[0], rel=1e-4)


def test_whitened_volumes_are_scored_with_whitened_templates(volume: np.ndarray) -> None:
    match = Matcher([template()], replace(SETTINGS, whiten=True, refine=False), [PICKS]).match(volume).templates[0]
    profile = whitening_profile(volume)
    made = replace(template(), density=radially_filtered(template().density, profile))
    expected = exact_scores(filtered(volume, profile), made, covering(40.0))
    np.testing.assert_allclose(match.scores[SCORED], expected[SCORED], atol=1e-5)


def test_guards_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="--search exact"):
        MatchSettings(noise_correction=True)
    with pytest.raises(InputError, match="--cutoff extreme"):
        Matcher([template()], replace(SETTINGS, noise_correction=True), [Extraction(5.0, cutoff="gaussian")])


def test_a_mask_keeps_picks_inside(volume: np.ndarray) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[:, :, 28:] = True
    found = Matcher([template()], SETTINGS, [PICKS]).match(volume, mask=mask).particles
    assert (found.positions_vox[:, 0] >= 27.5).all()
    assert found.positions_vox[0] == pytest.approx([33, 10, 9], abs=0.3)


def test_gaussian_cutoffs_take_the_deviation_of_single_scores(volume: np.ndarray) -> None:
    matcher = Matcher([template()], SETTINGS, [Extraction(5.0, cutoff="gaussian", edge_vox=6)])
    match = matcher.match(volume).templates[0]
    rotations, inside = covering(40.0), inside_faces(6)
    # Each of some rotations alone, as often as one compilation takes; they stand for all.
    squares = [
        (exact_scores(volume, template(), np.repeat(turned[None], 32, axis=0))[inside] ** 2).mean()
        for turned in rotations[::10]
    ]
    expected = np.sqrt(np.mean(squares)) * scipy.stats.norm.isf(1 / (inside.sum() * len(rotations)))
    assert match.cutoff == pytest.approx(expected, rel=0.02)


def test_tiles_of_another_mask_are_not_gone_on_with(volume: np.ndarray, tmp_path: Path) -> None:
    left, right = np.zeros((2, *SHAPE), bool)
    left[:, :, :20], right[:, :, 24:] = True, True
    settings = replace(SETTINGS, tile_vox=22, refine=False)
    Matcher([template()], settings, [PICKS]).match(volume, mask=left, folder=tmp_path, stamp="a")
    done: list[int] = []
    match = Matcher([template()], settings, [PICKS]).match(
        volume, mask=right, folder=tmp_path, stamp="a", on_units=done.append
    )
    expected = exact_scores(volume, template(), covering(40.0))
    scored = right & inside_faces(5)
    np.testing.assert_allclose(match.templates[0].scores[scored], expected[scored], atol=1e-5)
    assert len(done) > 2
    done.clear()
    again = Matcher([template()], settings, [PICKS]).match(
        volume, mask=right, folder=tmp_path, stamp="a", on_units=done.append
    )
    np.testing.assert_array_equal(again.templates[0].scores, match.templates[0].scores)
    angles = 2 * len(covering(40.0))
    assert done == [angles, round(0.1 * angles)]  # all tiles are there; the refinement is of positions alone


def test_the_bound_on_memory_holds_every_search() -> None:
    one, two = (
        Matcher([template(name=n) for n in names], MatchSettings(), [PICKS] * len(names)) for names in ("a", "ab")
    )
    table = len(covering(10.0)) * int(np.count_nonzero(template().mask)) * 4
    assert two.bytes(SHAPE) - one.bytes(SHAPE) >= table
    tight = MatchSettings(memory_bytes=2 * table)
    Matcher([template()], tight, [PICKS]).check_memory()
    with pytest.raises(InputError, match=r"GiB may be used.*--search exact"):
        Matcher([template(), template(name="b")], tight, [PICKS] * 2).prepare()


@pytest.mark.parametrize("search", ["exact", "cascade"])
def test_a_whitened_search_is_planned_before_it_is_made(search: str, volume: np.ndarray) -> None:
    plans = [
        Matcher([template()], MatchSettings(40.0, search, whiten=whiten, refine=False), [PICKS])
        for whiten in (True, False)
    ]
    whitened, plain = plans
    assert whitened.units(SHAPE) == plain.units(SHAPE) > 0
    assert whitened.bytes(SHAPE) == plain.bytes(SHAPE) + 24 * np.prod(SHAPE)
    done: list[int] = []
    whitened.match(volume, on_units=done.append)
    assert sum(done) == whitened.units(SHAPE)


def test_a_search_goes_on_with_the_division_that_it_has(volume: np.ndarray, tmp_path: Path) -> None:
    small = replace(SETTINGS, tile_vox=22, refine=False)
    Matcher([template()], small, [PICKS]).match(volume, folder=tmp_path, stamp="a")
    large = Matcher([template()], replace(small, tile_vox=64), [PICKS])
    assert large.tiling(SHAPE).core_zyx == (10, 10, 34)
    assert large.tiling(SHAPE, tmp_path).core_zyx == (10, 10, 17)
    done: list[int] = []
    large.match(volume, folder=tmp_path, stamp="a", on_units=done.append)
    assert sum(done) == large.units(SHAPE, tmp_path)
    assert done[0] == 2 * len(covering(40.0))
    assert Matcher([template()], replace(small, tile_vox=16), [PICKS]).tiling(SHAPE, tmp_path).core_zyx == (10, 10, 12)


def test_a_division_that_does_not_fit_any_more_is_made_anew(tmp_path: Path) -> None:
    shape, core = (20, 20, 100), (10, 10, 90)
    MapStore(shape, ("scores",), tmp_path / "blob", {"core": core}).put(
        Tiling(shape, core, 5), (5, 5, 5), {"scores": ONES}
    )
    cost = Matcher([template()], SETTINGS, [PICKS]).costs[0]
    for short, expected in ((0, core), (1, (10, 10, 45))):
        settings = replace(SETTINGS, memory_bytes=cost.held + cost.bytes(core) - short)
        assert Matcher([template()], settings, [PICKS]).tiling(shape, tmp_path).core_zyx == expected
    assert kept_core(tmp_path / "blob", (20, 20, 101)) is None
    (tmp_path / "blob" / "tiles.json").write_text("{")
    assert kept_core(tmp_path / "blob", shape) is None


def test_weights_by_tilt_take_the_place_of_the_wedge() -> None:
    scheme = TiltScheme((-30.0, 0.0, 30.0))
    matchers = [
        Matcher([template()], MatchSettings(scheme=s, tilt_range_deg=r), [PICKS])
        for s, r in ((scheme, None), (None, (-60.0, 60.0)), (None, None))
    ]
    wedges = [matcher.wedge(template()) for matcher in matchers]
    assert wedges[0] is not None
    assert wedges[1] is not None
    assert wedges[0].mean() < wedges[1].mean() < 1
    assert wedges[2] is None
    assert len({matcher.fingerprint() for matcher in matchers}) == 3


def test_matchers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="name of its own"):
        Matcher([template(), template()], SETTINGS, [PICKS, PICKS])
    with pytest.raises(InputError, match="extraction"):
        Matcher([template()], SETTINGS, [])
    with pytest.raises(InputError, match="unknown search"):
        MatchSettings(search="fast")


MICROTUBULES = {
    "cylindra_13pf_MT.tif": [[18.97, 190.0, 28.99], [18.97, 107.8, 51.48]],
    "14pf_MT.tif": [[21.97, 123.1, 32.98], [21.97, 83.3, 40.5]],
}
"""Crops of 13 and 14 protofilaments; two points of their axes, nm, z y x, as their source states them."""


@pytest.mark.parametrize(
    ("crop", "search"),
    [("cylindra_13pf_MT.tif", "exact"), ("cylindra_13pf_MT.tif", "cascade"), ("14pf_MT.tif", "cascade")],
)
def test_tubulin_is_found_in_the_wall_of_a_real_microtubule(shared_data: Path, crop: str, search: str) -> None:
    """Of the 100 best picks 45 % at least lie in the wall, which scores 1.5 times what lies outside.

    The wall lies 8 to 12 voxels from the axis. With inverted contrast it scores less than its surroundings.
    """
    folder = shared_data / "tomograms"
    if not (folder / "beta-tubulin.mrc").is_file() or not (folder / crop).is_file():
        pytest.skip(f"no tubulin template and microtubule at {folder}")
    data = standardised(read_volume(folder / crop).data.astype(np.float32))
    tubulin = read_volume(folder / "beta-tubulin.mrc").data
    ends = np.array(MICROTUBULES[crop]) / 1.052
    length = float(np.linalg.norm(ends[1] - ends[0]))
    grid = np.indices(data.shape).transpose(1, 2, 3, 0) - ends[0]
    along = grid @ (ends[1] - ends[0]) / length
    from_axis = np.linalg.norm(grid - along[..., None] * (ends[1] - ends[0]) / length, axis=-1)
    piece = (along > 0) & (along < length)
    wall, outside = piece & (from_axis >= 8) & (from_axis < 12), piece & (from_axis >= 16)
    for dark in (False, True):
        made = TemplateRecipe(diameter_angstrom=96.0, low_pass_angstrom=21.0, dark=dark).make(
            "t", tubulin, 5.144, 10.52
        )
        settings = MatchSettings(step_deg=45.0, search=search, refine=False)
        picks = Extraction(3.0, cutoff="none", max_picks=100, edge_vox=6)
        match = Matcher([made], settings, [picks]).match(data, mask=piece).templates[0]
        inner = (slice(6, -6),) * 3
        ratio = match.scores[inner][wall[inner]].mean() / match.scores[inner][outside[inner]].mean()
        if dark:
            assert ratio < 0.8
        else:
            assert ratio > 1.5
            voxels = np.rint(match.particles.positions_vox[:, ::-1]).astype(int)
            near = from_axis[tuple(voxels.T)]
            share, chance = (((at >= 6) & (at <= 14)).mean() for at in (near, from_axis[piece]))
            assert share >= max(0.45, 3 * chance)
