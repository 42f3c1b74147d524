"""The gallery of an audit: close-ups at the right place, and a page that needs no network and trusts no text."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robpicker_jax.annotations import Particles
from robpicker_jax.picking.inference import ArrayReader
from robpicker_jax.reporting.gallery import close_up, write_gallery


@pytest.fixture
def tomogram() -> ArrayReader:
    """Dark but for two bright cubes: about (x, y, z) = (20, 14, 9), and to the right of it at (25, 14, 9)."""
    density = np.zeros((24, 40, 44), np.float32)
    for x in (20, 25):
        density[8:11, 13:16, x - 1 : x + 2] = 10
    return ArrayReader(density)


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), float)


@pytest.mark.fast
def test_slices_pass_through_the_position(tomogram: ArrayReader) -> None:
    found = close_up(tomogram, np.array([20.0, 14.0, 9.0]), 4.0)
    assert found.edge_vox == 25
    assert found.corner_xyz == (8, 2, -3)
    for data in (found.xy, found.xz):
        image = picture(data)
        assert image.shape == (25, 25)
        assert image[12, 12] > 200
        assert image[12, 17] > 200
        assert image[12, 2] < 60
        assert image[4, 12] < 60


def test_a_position_at_the_edge_has_a_close_up_too(tomogram: ArrayReader) -> None:
    found = close_up(tomogram, np.array([-0.4, 39.4, 0.0]), 4.0)
    assert picture(found.xy).shape == (25, 25)


def test_the_page_holds_every_suspicion_and_asks_for_nothing(tomogram: ArrayReader, tmp_path: Path) -> None:
    positions = np.array([[20.0, 14.0, 9.0], [25.0, 14.0, 9.0]])
    moved = positions + np.array([[0, 0, 0], [2.0, 1.0, 0]])
    rows = Particles(
        positions,
        [1, 2],
        scores=[0.9, 0.6],
        class_names=["<b>ribosome", "apoferritin"],
        tomograms=['tomo"><script>', "b"],
        extra={
            "kind": np.array(["wrong_class", "displaced"]),
            "suggested_class": np.array(["apoferritin", "apoferritin"]),
            **{f"suggested_{axis}_vox": moved[:, k] for k, axis in enumerate("xyz")},
            "row": np.array([3, 7]),
            "correction": np.array([-0.4, np.nan]),
        },
    )
    pictures = [close_up(tomogram, position, 4.0) for position in positions]
    write_gallery(tmp_path / "index.html", rows, pictures, subtitle="<mine>/train", of=5)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    cards = re.findall(r'<article class="suspicion" data-kind="(\w+)"', page)
    assert cards == ["wrong_class", "displaced"]
    assert "<b>ribosome" not in page
    assert "<mine>" not in page
    assert page.count("<script") == 1
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    # Rings: one for what is annotated, a second one for the suggested position, 2 voxels to the right and 1 up.
    rings = re.findall(r'class="(given|suggested)" cx="([\d.]+)" cy="([\d.]+)"', page)
    assert [style for style, _, _ in rings] == ["given", "given", "given", "suggested", "given", "suggested"]
    (_, x, y), (_, to_x, to_y) = rings[2:4]
    assert float(to_x) - float(x) == pytest.approx(2)
    assert float(y) - float(to_y) == pytest.approx(1)
    assert (float(x), float(y)) == (12.5, 12.5)
