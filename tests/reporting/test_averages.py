"""Figures of averages."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.reporting.averages import AverageView, fsc_figure

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("edge", [24, 25])
def test_shells_stand_at_their_frequencies(edge: int) -> None:
    """Shell s of a box lies at s / (edge · voxel size), also where the edge is odd."""
    curve = np.linspace(1, 0, edge // 2)
    box = np.zeros((edge,) * 3)
    view = AverageView("ribosome", box, box > 0, 10.0, 8, curve, curve, curve, 40.0)
    line = fsc_figure([view]).axes[0].lines[0]
    np.testing.assert_allclose(np.asarray(line.get_xdata()), np.arange(edge // 2) / (edge * 10.0))
