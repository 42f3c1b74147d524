"""Several templates in one tomogram, corrections and guards, and the real microtubules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.matching import (
    Extraction,
    Matcher,
    MatchSettings,
    Template,
    TemplateRecipe,
    ball_mask,
)
from robpicker_jax.rotations import TiltScheme, covering
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume
from tests.matching.cases import planted, standardised, template

pytestmark = pytest.mark.fast

SHAPE = (20, 20, 44)
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


def test_guards_run_beside_the_search(volume: np.ndarray) -> None:
    settings = MatchSettings(
        step_deg=40.0, search="exact", noise_correction=True, mirror=True, whiten=True, refine=False
    )
    match = Matcher([template()], settings, [PICKS]).match(volume).templates[0]
    assert match.mirrored is not None
    assert 0.5 < match.mirrored < 1.5  # of two small particles and a bead: no verdict
    assert match.scores.shape == SHAPE
    assert np.isfinite(match.scores).all()


def test_a_mask_keeps_picks_inside(volume: np.ndarray) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[:, :, 28:] = True
    found = Matcher([template()], SETTINGS, [PICKS]).match(volume, mask=mask).particles
    assert (found.positions_vox[:, 0] >= 27.5).all()
    assert found.positions_vox[0] == pytest.approx([33, 10, 9], abs=0.3)


def test_gaussian_cutoffs_take_the_deviation_of_single_scores(volume: np.ndarray) -> None:
    matcher = Matcher([template()], SETTINGS, [Extraction(5.0, cutoff="gaussian", edge_vox=6)])
    match = matcher.match(volume).templates[0]
    assert 0 < match.cutoff < 1


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


@pytest.mark.parametrize("search", ["exact", "cascade"])
def test_tubulin_is_found_in_the_wall_of_a_real_microtubule(shared_data: Path, search: str) -> None:
    """Of the 100 best picks 45 % at least lie in the wall, which scores 1.5 times what lies outside.

    The axis is the piece that the crop's source states, the wall lies 8 to 12 voxels from it. With inverted contrast the wall
    scores less than its surroundings.
    """
    folder = shared_data / "tomograms"
    if not (folder / "beta-tubulin.mrc").is_file():
        pytest.skip(f"no tubulin template at {folder}")
    data = standardised(read_volume(folder / "cylindra_13pf_MT.tif").data.astype(np.float32))
    tubulin = read_volume(folder / "beta-tubulin.mrc").data
    ends = np.array([[18.97, 190.0, 28.99], [18.97, 107.8, 51.48]]) / 1.052
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
            assert ((near >= 6) & (near <= 14)).mean() >= 0.45
