"""Figures of averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.reporting.averages import AverageView, fsc_figure, write_average_page

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("edge", [24, 25])
def test_shells_stand_at_their_frequencies(edge: int) -> None:
    """Shell s of a box lies at s / (edge · voxel size), also where the edge is odd."""
    curve = np.linspace(1, 0, edge // 2)
    box = np.zeros((edge,) * 3)
    view = AverageView("ribosome", box, box > 0, 10.0, 8, curve, curve, curve, 40.0, 60.0)
    line = fsc_figure([view]).axes[0].lines[0]
    np.testing.assert_allclose(np.asarray(line.get_xdata()), np.arange(edge // 2) / (edge * 10.0))


def test_the_page_shows_slices_and_fsc_of_each_class(tmp_path: Path) -> None:
    box = np.random.default_rng(0).normal(size=(24, 24, 24))
    curve = np.linspace(1, 0, 12)
    views = [
        AverageView(name, box, box > 1, 10.0, n, curve, curve, curve, limit, 60.0, warning)
        for name, n, limit, warning in (("a<b", 8, 41.25, None), ("second", 7, np.inf, "the mask is large"))
    ]
    text = write_average_page(tmp_path / "report.html", views).read_text()
    assert text.count("data:image/png;base64,") == 4
    assert "a&lt;b" in text
    assert "a<b" not in text
    assert "<td>a&lt;b</td><td>8</td><td>41.2 Å</td><td>60.0 Å</td><td></td>" in text
    assert "<td>second</td><td>7</td><td>no agreement</td><td>60.0 Å</td><td>the mask is large</td>" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "does not prove its picks" in text
