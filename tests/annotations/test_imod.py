"""IMOD models: real ones, and the chunks of the format's page (https://bio3d.colorado.edu/imod/doc/binspec.html)."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def formats(shared_data: Path) -> Path:
    return shared_data / "formats"


def test_imod_models(formats: Path) -> None:
    for name, count in [("multiple_objects_example", 6), ("oriented_points", 4)]:
        path = formats / f"{name}.mod"
        content = path.read_bytes()
        points = []
        for match in re.finditer(b"CONT", content):
            (n,) = struct.unpack_from(">i", content, match.end())
            floats = struct.unpack_from(f">{3 * n}f", content, match.end() + 16)
            points += [floats[3 * i : 3 * i + 3] for i in range(n)]
        particles = read_annotations(path)
        assert len(particles) == len(points) == count
        np.testing.assert_allclose(particles.positions_vox, np.array(points) - [0.5, 0.5, 0], rtol=1e-6)
        raw = read_annotations(path, half_pixel=False)
        np.testing.assert_allclose(raw.positions_vox, points, rtol=1e-6)
    assert read_annotations(formats / "multiple_objects_example.mod").labels.max() == 3


def imod_model(
    flags: int, contours: list[list[tuple[float, ...]]], chunks: dict[int | None, bytes], tail: bytes
) -> bytes:
    """A model of one object by the format's page; chunks after contours by their index, None: after the object."""
    header = struct.pack(">128s4iI", b"m", 90, 90, 90, 1, flags).ljust(232, b"\0")
    body = b"OBJT" + struct.pack(">64s64xi", b"o", len(contours)).ljust(176, b"\0")
    for index, points in enumerate(contours):
        body += b"CONT" + struct.pack(">iIii", len(points), 0, 0, 0)
        body += b"".join(struct.pack(">3f", *point) for point in points) + chunks.get(index, b"")
    return b"IMODV1.2" + header + body + chunks.get(None, b"") + tail + b"IEOF"


def imod_store(kind: bytes, *items: tuple[int, int, int, float]) -> bytes:
    return kind + struct.pack(">i", 12 * len(items)) + b"".join(struct.pack(">hHif", *item) for item in items)


def test_imod_values_are_scores(tmp_path: Path) -> None:
    """Point values after a contour; contour values after the object; gaps, surfaces and ranges are no scores."""
    path = tmp_path / "m.mod"
    points = imod_store(b"COST", (10, 0x84, 1, 0.25), (4, 0x80, 0, 0.5), (10, 0x84, 7, 0.5))
    contours = imod_store(b"OBST", (10, 4, 1, 0.75), (10, 4 | 64, 0, 0.1), (11, 0x15, 0, 1.0))
    path.write_bytes(imod_model(0, [[(1.5, 2.5, 3), (4.5, 5.5, 6)], [(7.5, 8.5, 9)]], {0: points, None: contours}, b""))
    particles = read_annotations(path)
    np.testing.assert_array_equal(particles.scores, [np.nan, 0.25, 0.75])
    assert particles.positions_vox.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_imod_image_reference(tmp_path: Path) -> None:
    """Y and z exchanged, then (coordinate · cscale − ctrans + otrans) / cscale, where flag 14 says that otrans is an origin."""
    path = tmp_path / "m.mod"
    reference = struct.pack(">18f", 1, 1, 1, 10, 20, 30, 0, 0, 0, 10, 10, 10, -90, -180, -270, 0, 0, 0)
    tail = b"MINX" + struct.pack(">i", 72) + reference
    for flags, expected in ((1 << 13, [1, 2, 3]), (1 << 14, [11, 22, 33]), (1 << 14 | 1 << 16, [11, 23, 32])):
        path.write_bytes(imod_model(flags, [[(1.5, 2.5, 3)]], {}, tail))
        assert read_annotations(path).positions_vox.tolist() == [expected]


def test_written_imod_values_follow_the_formats_page(tmp_path: Path) -> None:
    path = tmp_path / "m.mod"
    particles = Particles([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [1, 2, 2], scores=[0.5, np.nan, 0.25])
    write_annotations(path, particles)
    content = path.read_bytes()
    assert struct.unpack_from(">I", content, 8 + 144)[0] & 1 << 13  # material in bytes
    objects = [match.start() for match in re.finditer(b"OBJT", content)]
    assert all(struct.unpack_from(">I", content, at + 4 + 132)[0] & 1 << 12 for at in objects)  # values are used
    stores = [match.end() for match in re.finditer(b"COST", content)]
    assert struct.unpack_from(">ihHif", content, stores[0]) == (12, 10, 0x84, 0, 0.5)
    assert struct.unpack_from(">ihHif", content, stores[1]) == (12, 10, 0x84, 1, 0.25)
    ranges = [match.end() for match in re.finditer(b"OBST", content)]
    assert struct.unpack_from(">ihHff", content, ranges[1]) == (12, 11, 0x15, 0.25, 0.25)
    materials = [match.end() for match in re.finditer(b"IMAT", content)]
    assert content[materials[0] + 4 + 12 : materials[0] + 4 + 14] == bytes([0, 255])  # grey of the least and largest
