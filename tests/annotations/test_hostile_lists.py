"""Kinds of hostile and unlucky lists (field row E5, E9): read in linear time or refused; what is written reads back."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

SHAPE_ZYX = (100, 100, 100)
WRITTEN = [name for name, entry in FORMATS.items() if entry.write is not None]


def imod_model(contours: int, objects: int) -> bytes:
    """A model with a general value for each contour, stored with its object (OBST)."""
    value = b"OBST" + struct.pack(">i", 12) + struct.pack(">hHif", 10, 4, 0, 0.5)
    contour = b"CONT" + struct.pack(">4i", 1, 0, 0, 0) + struct.pack(">3f", 1, 2, 3) + value
    return b"IMODV1.2" + bytes(232) + (b"OBJT" + bytes(176) + contour * contours) * objects + b"IEOF"


@pytest.mark.parametrize("many", ["objects", "contours"])
def test_e9_the_time_of_reading_an_imod_model_grows_with_its_size(many: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mod"
    seconds = {}
    for count in (500, 20_000):
        path.write_bytes(imod_model(count, 1) if many == "contours" else imod_model(1, count))
        began = time.process_time()
        particles = read_annotations(path)
        seconds[count] = time.process_time() - began
        assert len(particles) == count
        assert particles.scores is not None
        # A value with index 0 is that of the object's first contour.
        assert np.count_nonzero(particles.scores == 0.5) == (1 if many == "contours" else count)
    # 40 times the size: 1,600 times as long, were it quadratic.
    assert seconds[20_000] < 300 * max(seconds[500], 0.005)


def test_e9_a_star_table_of_too_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    header = "".join(f"_rln{i}\n" for i in range(100_000))
    path.write_text(f"data_\n\nloop_\n{header}{'1 ' * 100_000}\n")
    with pytest.raises(InputError, match="more than 10,000 columns"):
        read_annotations(path)


def test_e5_a_cell_in_quotes_may_hold_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('x,y,z,class_name\n1,2,3,"a\nb"\n4,5,6,c\n7,8,nine,d\n')
    with pytest.raises(InputError, match=r"line 5: z is 'nine'"):
        read_annotations(path)
    path.write_text('x,y,z,class_name\n1,2,3,"a\nb"\n4,5,6,c\n')
    particles = read_annotations(path)
    assert particles.class_names is not None
    assert particles.class_names.tolist() == ["a\nb", "c"]
    np.testing.assert_array_equal(particles.positions_vox, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("number", ["1_000", "１２", "1e400", "inf", "nan", "0x10"])
@pytest.mark.parametrize("format_", ["csv", "star", "xml", "coords", "tbl"])
def test_e5_one_rule_for_what_a_number_is(number: str, format_: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format_}"
    columns = "".join(f"_rlnCoordinate{axis}\n" for axis in "XYZ")
    rows = {
        "csv": f"x,y,z\n1,2,3\n{number},2,3\n",
        "star": f"data_\n\nloop_\n{columns}{number} 2 3\n",
        "xml": f'<objlist><object class_label="1" x="{number}" y="2" z="3"/></objlist>',
        "coords": f"{number} 2 3\n",
        "tbl": " ".join(["1"] * 23 + [number, "2", "3"] + ["0"] * 9) + "\n",
    }
    path.write_text(rows[format_])
    with pytest.raises(InputError):
        read_annotations(path)


def picks(**changes: Any) -> dict[str, Any]:
    point = {"location": {"x": 1, "y": 2, "z": 3}} | changes.pop("point", {})
    return {"points": [point], "voxel_spacing": 10.0} | changes


@pytest.mark.parametrize(
    "content",
    [
        picks(voxel_spacing=10**400),
        picks(point={"location": {"x": 10**400, "y": 1, "z": 2}}),
        picks(point={"transformation_": [[10**400, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}),
        picks(voxel_spacing=1e-320),
    ],
)
def test_e9_numbers_of_copick_beyond_any_float_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        read_annotations(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(picks(point={"score": 10**400, "instance_id": 10**400})))
    assert len(read_annotations(tmp_path / "a.json")) == 1


def round_trip(particles: Particles, fmt: str, folder: Path) -> Particles | None:
    """What is read of a list that was written; None where it was refused, so that nothing was written."""
    path = folder / FORMATS[fmt].file_name("a")
    known: dict[str, Any] = {"voxel_size_angstrom": 10.0, "shape_zyx": SHAPE_ZYX}
    try:
        write_annotations(path, particles, fmt=fmt, **known)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert not path.exists()
        return None
    return read_annotations(path, fmt=fmt, **known)


@pytest.mark.parametrize("fmt", WRITTEN)
def test_every_list_that_is_written_reads_back(fmt: str, tmp_path: Path) -> None:
    """Values at and beyond what each format holds: refused when writing, or read as they were written."""
    place = [[1.0, 2.0, 3.0]]
    cases = [Particles([[x, 2.0, 3.0]], [1]) for x in (1e308, -1e39, 2e9, -5e8)]
    cases += [Particles(place, [label]) for label in (2**31 - 1, 2**24 + 1, 2**24, 255)]
    cases += [Particles(place, [1], scores=[score]) for score in (1e308, np.inf, 1e-320, -1.0)]
    cases += [Particles(place, [1], cluster_sizes=[size]) for size in (2**62, -3, 2**31 - 1)]
    cases += [Particles(place, [1], class_names=[name], tomograms=["t"]) for name in ('a"b', "c\nd", "=1+1", "#", "'")]
    for number, particles in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = round_trip(particles, fmt, folder)
        if found is None:
            continue
        np.testing.assert_allclose(found.positions_vox, particles.positions_vox, rtol=1e-6, atol=1e-4)
        if "labels" in FORMATS[fmt].keeps and fmt != "bild":  # BILD has a colour for each class, and twelve colours
            assert found.labels.tolist() == particles.labels.tolist()
        if "cluster_sizes" in FORMATS[fmt].keeps and particles.cluster_sizes is not None:
            assert found.cluster_sizes is not None
            assert found.cluster_sizes.tolist() == particles.cluster_sizes.tolist()


def test_what_no_reader_would_take_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no position in a tomogram"):
        write_annotations(tmp_path / "a.xml", Particles([[1e308, 2, 3]], [1]))
    with pytest.raises(InputError, match="holds labels up to 16777216"):
        write_annotations(tmp_path / "a.em", Particles([[1, 2, 3]], [2**24 + 1]))
    with pytest.raises(InputError, match="no size of a cluster"):
        write_annotations(tmp_path / "a.csv", Particles([[1, 2, 3]], [1], cluster_sizes=[-1]))


def test_names_of_tomograms_that_float32_cannot_tell_apart_are_numbered_anew(tmp_path: Path) -> None:
    names = ["16777216", "16777217"]
    write_annotations(tmp_path / "a.em", Particles([[1, 2, 3], [4, 5, 6]], [1, 1], tomograms=names))
    found = read_annotations(tmp_path / "a.em").tomograms
    assert found is not None
    assert len(set(found.tolist())) == 2
