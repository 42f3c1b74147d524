"""What napari draws of the picks in a slice: the circles in which their spheres cut it, along every axis."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tests.napari_plugin.cases import RADII_VOX, opened, press, reviewed_in
from tests.reviewing.review_cases import picks

ORDERS = list(permutations(range(3)))


def drawn(session: Any) -> dict[int, float]:
    """Diameters of the points that napari draws in the shown slice, by index; it has no public name for them."""
    layer = session.layer
    indices = layer._view_indices if hasattr(layer, "_view_indices") else layer._indices_view  # before 0.9
    return dict(zip(indices.tolist(), np.ravel(layer._view_size).tolist(), strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_each_pick_is_the_circle_in_which_its_sphere_cuts_the_slice(viewer: Any, order: tuple[int, ...]) -> None:
    given = picks(60)
    session = reviewed_in(viewer, given)
    viewer.dims.order = order
    across = order[0]
    centres = given.particles.positions_vox[:, ::-1][:, across]
    radii = np.array(RADII_VOX)[given.particles.labels - 1]
    farthest = 0.0
    for shown in (4, 9, 15, 16, 22, 27):
        viewer.dims.set_point(across, shown)
        depths = np.abs(centres - shown)
        cut = np.flatnonzero(depths < radii)
        found = drawn(session)
        if hasattr(viewer, "scene"):  # 0.9 and later
            assert sorted(found) == cut.tolist()
            diameters = 2 * np.sqrt(radii[cut] ** 2 - depths[cut] ** 2)
            np.testing.assert_allclose([found[index] for index in cut], diameters, rtol=1e-6)
        else:
            # Earlier versions draw the same picks, but let the circles shrink linearly.
            assert set(cut.tolist()) <= set(found)
        farthest = max(farthest, *depths[cut])
        # The margins of the slice are for the picks alone: the density is that of the slice.
        density = session.opened.density.take(shown, axis=across)
        if order[1] > order[2]:
            density = density.T
        np.testing.assert_array_equal(session.image._data_view, density)
    assert farthest > 4  # voxels from the centre of a pick


def test_other_radii_of_a_second_tomogram_are_drawn_too(viewer: Any) -> None:
    from robpicker_jax.napari_plugin.opening import Opened
    from robpicker_jax.napari_plugin.session import ReviewSession

    reviewed_in(viewer, picks())
    for radius in (9.0, 2.0):
        second = opened(picks(name="TS_02"))
        session = ReviewSession(viewer, Opened(second.density, second.given, (radius,) * 3))
        viewer.dims.set_point(0, 15)
        depths = np.abs(second.given.particles.positions_vox[:, 2] - 15)
        assert set(np.flatnonzero(depths < radius).tolist()) <= set(drawn(session))
    # A tomogram of small particles does not take the margins of the others away.
    assert not hasattr(viewer, "scene") or viewer.dims.margin_left == (9.0,) * 3


@pytest.mark.parametrize("order", ORDERS)
def test_going_on_shows_the_pick_whichever_axis_lies_across(viewer: Any, order: tuple[int, ...]) -> None:
    given = picks()
    session = reviewed_in(viewer, given)
    viewer.dims.order = order
    camera = getattr(viewer, "scene", viewer).camera
    for best in np.argsort(-given.particles.scores)[:5].tolist():
        press(session, "n")
        assert session.selected == [best]
        centre = given.particles.positions_vox[best, ::-1]
        assert drawn(session)[best] == pytest.approx(2 * RADII_VOX[given.particles.labels[best] - 1])
        np.testing.assert_allclose(camera.center[-2:], centre[list(order[1:])])
