"""Values that a list leaves open: read as unknown row by row, and written so that nothing is claimed silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes

WORDS = ("nan", "NaN", "None", "<NA>", "NA", "null")
STAR_COLUMNS = (
    *(f"rlnCoordinate{axis}" for axis in "XYZ"),
    *(f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")),
    *("rlnClassNumber", "rlnAutopickFigureOfMerit", "rlnTomoName"),
)
LABELS = {"a": 1, "b": 2}


def star(*rows: str) -> str:
    header = "".join(f"_{name} #{i}\n" for i, name in enumerate(STAR_COLUMNS, start=1))
    return f"data_particles\n\nloop_\n{header}{''.join(row + chr(10) for row in rows)}"


def read_text(tmp_path: Path, name: str, text: str, **options: Any) -> Particles:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_annotations(path, **options)


def half_oriented(n: int = 4) -> Particles:
    """Every second particle with an orientation and a score, the others without."""
    rotations = random_rotations(n, np.random.default_rng(1))
    rotations[1::2] = np.nan
    scores = np.linspace(0.5, 0.9, n)
    scores[1::2] = np.nan
    positions = np.arange(3.0 * n).reshape(n, 3) + 5
    return Particles(positions, [1] * n, rotations, scores, tomograms=["TS_1"] * n)


# ---- decided on the first row ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "frame"),
    [
        (
            "o.xml",
            (
                '<object class_name="a" x="1" y="2" z="3"/>',
                '<object class_label="2" class_name="b" x="4" y="5" z="6"/>',
            ),
            "<objlist>{}</objlist>",
        ),
        ("o.csv", ("1,2,3,,a\n", "4,5,6,2,b\n"), "x,y,z,class_label,class_name\n{}"),
        (
            "o.cmm",
            ('<marker note="a" x="1" y="2" z="3"/>', '<marker class_label="2" note="b" x="4" y="5" z="6"/>'),
            "<marker_set>{}</marker_set>",
        ),
    ],
)
def test_a13_the_class_is_decided_row_by_row(tmp_path: Path, name: str, rows: tuple[str, str], frame: str) -> None:
    """One row has a name alone and one has both; which of them comes first says nothing."""
    for labels, expected in ((LABELS, [1, 2]), ({"a": 1, "b": 9}, [1, 2]), (None, [0, 2])):
        for order in (1, -1):
            text = frame.format("".join(rows[::order]))
            found = read_text(tmp_path, name, text, class_labels=labels, voxel_size_angstrom=1.0)
            assert found.labels.tolist() == expected[::order]


def test_a13_the_case_from_the_field(shared_data: Path) -> None:
    path = shared_data / "cases" / "mixed_class_names.xml"
    assert read_annotations(path, class_labels={"a": 1, "b": 9}).labels.tolist() == [1, 2]


def test_a13_an_object_without_class_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    objects = ('<object x="1" y="2" z="3"/>', '<object class_name="b" x="4" y="5" z="6"/>')
    for order, number in ((1, 1), (-1, 2)):
        with pytest.raises(InputError, match=f"object {number} has no attribute 'class_label'"):
            read_text(tmp_path, "o.xml", f"<objlist>{''.join(objects[::order])}</objlist>", class_labels=LABELS)


def test_a13_a_single_row_of_optics_is_not_everyones(tmp_path: Path) -> None:
    """The kind's cousin in STAR files: the only optics group was taken for particles of any group."""
    text = (
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnTomoTiltSeriesPixelSize #2\n1 2.5\n\n"
        "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\n"
        "_rlnOpticsGroup #5\nTS_1 40 80 120 1\nTS_1 40 80 120 {}\n"
    )
    found = read_text(tmp_path, "p.star", text.format(1), voxel_size_angstrom=10.0)
    np.testing.assert_allclose(found.positions_vox, [[10, 20, 30]] * 2)
    with pytest.raises(InputError, match="row 2: optics group 2 is not in the optics table"):
        read_text(tmp_path, "p.star", text.format(2), voxel_size_angstrom=10.0)


# ---- missing values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_b9_missing_cells_of_star_files_are_unknown(tmp_path: Path, word: str) -> None:
    other = "4 5 6 0 0 0 2 0.5 TS_1"
    found = read_text(tmp_path, "p.star", star(f"1 2 3 0 0 0 1 {word} TS_1", other))
    np.testing.assert_array_equal(found.scores, [np.nan, 0.5])
    found = read_text(tmp_path, "p.star", star(f"1 2 3 0 0 0 {word} 0.5 TS_1", other))
    assert found.labels.tolist() == [0, 2]
    found = read_text(tmp_path, "p.star", star(f"1 2 3 {word} 0 {word} 1 0.5 TS_1", other))
    assert np.isnan(found.rotations[0]).all()
    assert np.allclose(found.rotations[1], np.eye(3))
    with pytest.raises(InputError, match="row 1: rlnCoordinateX"):
        read_text(tmp_path, "p.star", star(f"{word} 2 3 0 0 0 1 0.5 TS_1", other))


@pytest.mark.parametrize("word", ["inf", "-inf"])
def test_b9_infinite_scores_are_unknown(tmp_path: Path, word: str) -> None:
    found = read_text(tmp_path, "p.star", star(f"1 2 3 0 0 0 1 {word} TS_1", "4 5 6 0 0 0 1 0.5 TS_1"))
    np.testing.assert_array_equal(found.scores, [np.nan, 0.5])
    found = read_text(tmp_path, "p.csv", f"x,y,z,score\n1,2,3,{word}\n")
    assert np.isnan(found.scores).all()


def test_b9_text_where_a_number_belongs_is_still_refused(tmp_path: Path) -> None:
    for row, message in (
        ("1 2 3 0 0 0 1 high TS_1", "row 1: rlnAutopickFigureOfMerit is 'high'"),
        ("1 2 3 a 0 0 1 0.5 TS_1", "row 1: rlnAngleRot is 'a'"),
        ("1 2 3 0 0 0 inf 0.5 TS_1", "row 1: rlnClassNumber"),
    ):
        with pytest.raises(InputError, match=message):
            read_text(tmp_path, "p.star", star(row, "4 5 6 0 0 0 1 0.5 TS_1"))


@pytest.mark.parametrize("word", ["", *WORDS])
def test_b9_missing_cells_of_other_formats(tmp_path: Path, word: str) -> None:
    text = f"x,y,z,class_label,phi,psi,the,score\n1,2,3,{word},{word},0,0,{word}\n4,5,6,2,0,0,0,0.5\n"
    escaped = word.replace("<", "&lt;").replace(">", "&gt;")
    xml = f'<objlist><object class_label="{escaped}" phi="{escaped}" psi="0" the="0" score="{escaped}" x="1" y="2" z="3"/>'
    xml += '<object class_label="2" phi="0" psi="0" the="0" score="0.5" x="4" y="5" z="6"/></objlist>'
    for name, content in (("p.csv", text), ("p.xml", xml)):
        found = read_text(tmp_path, name, content)
        assert found.labels.tolist() == [0, 2]
        np.testing.assert_array_equal(found.scores, [np.nan, 0.5])
        assert np.isnan(found.rotations[0]).all()
        assert np.allclose(found.rotations[1], np.eye(3))


def test_b9_missing_cells_of_dynamo_tables_and_motive_lists(tmp_path: Path) -> None:
    write_annotations(tmp_path / "p.tbl", half_oriented(2).with_(scores=[0.5, 0.75]))
    rows = [line.split() for line in (tmp_path / "p.tbl").read_text().splitlines()]
    for column in (7, 10, 20, 22):
        rows[0][column - 1] = "NaN"
    found = read_text(tmp_path, "q.tbl", "".join(" ".join(row) + "\n" for row in rows))
    assert np.isnan(found.rotations[0]).all()
    assert np.isnan(found.scores[0])
    assert found.labels.tolist() == [0, 1]
    assert found.tomograms.tolist() == ["", "1"]
    write_annotations(tmp_path / "p.em", half_oriented(2))
    content = bytearray((tmp_path / "p.em").read_bytes())
    table = np.frombuffer(content, "<f4", offset=512).reshape(2, 20)
    table[0, [0, 4, 16, 19]] = np.nan
    (tmp_path / "q.em").write_bytes(bytes(content))
    found = read_annotations(tmp_path / "q.em")
    assert np.isnan(found.rotations[0]).all()
    assert np.isnan(found.scores[0])
    assert found.labels.tolist() == [0, 1]
    assert found.tomograms.tolist() == ["", "1"]


def test_b9_half_oriented_through_star_and_back(tmp_path: Path) -> None:
    """RELION finds numbers in every cell, and a column of ours says where they stand in for nothing."""
    before = half_oriented()
    for fmt in ("star", "warp"):
        path = tmp_path / f"{fmt}.star"
        with gathered_notes() as notes:
            write_annotations(path, before, fmt=fmt, voxel_size_angstrom=10.0)
        assert len(notes) == 1
        assert "0 0 0 (with rpkOrientationKnown 0) stands in" in notes[0]
        after = read_annotations(path, voxel_size_angstrom=10.0)
        np.testing.assert_allclose(after.rotations, before.rotations, atol=1e-6)
        np.testing.assert_allclose(after.scores, before.scores, rtol=1e-6)
        angles = [line.split() for line in path.read_text().splitlines() if "TS_1" in line]
        assert len(angles) == 4
        assert not any(cell == "nan" for row in angles for cell in row[4:7])


def test_b9_the_cases_from_the_field(shared_data: Path, tmp_path: Path) -> None:
    cases = shared_data / "cases"
    assert np.isnan(read_annotations(cases / "none_score.star").scores).all()
    assert np.isnan(read_annotations(cases / "infinite_score.star").scores).all()
    assert read_annotations(cases / "nan_class.star").labels.tolist() == [0, 1]
    assert np.isnan(read_annotations(cases / "nan_angles.star").rotations[0]).all()
    assert call(convert.main, [str(cases / "half_oriented.csv"), str(tmp_path / "h.star")]) == 0
    assert call(convert.main, [str(tmp_path / "h.star"), str(tmp_path / "h.csv")]) == 0
    back = read_annotations(tmp_path / "h.csv")
    assert np.isfinite(back.rotations[0]).all()
    assert np.isnan(back.rotations[1]).all()
    np.testing.assert_array_equal(back.scores, [0.5, np.nan])


@given(st.sampled_from([name for name, fmt in FORMATS.items() if fmt.write is not None]), st.booleans(), st.booleans())
def test_b9_what_stands_in_is_said(tmp_path_factory: Any, name: str, scored: bool, oriented: bool) -> None:
    """Written and read again, an unknown value is unknown, or the format has said what stands in for it."""
    fmt, before = FORMATS[name], half_oriented()
    before = before.with_(scores=before.scores if scored else None, rotations=before.rotations if oriented else None)
    folder = tmp_path_factory.mktemp("stand-in")
    path = folder / ("seed.json" if name == "copick" else f"seed{fmt.suffixes[0]}")
    size = {"voxel_size_angstrom": 10.0, "shape_zyx": (64, 64, 64)}
    with gathered_notes() as notes:
        write_annotations(path, before, fmt=name, **size)
    after = read_annotations(path, fmt=name, **size)
    np.testing.assert_allclose(np.sort(after.positions_vox, axis=0), np.sort(before.positions_vox, axis=0), atol=1e-4)
    for column, word in (("rotations", "orientation"), ("scores", "score")):
        said = any(f"where the {word} is not known" in sentence for sentence in notes)
        then, now = getattr(before, column), getattr(after, column)
        missing = len(before) if then is None else 2
        unknown = len(after) if now is None else np.isnan(now.reshape(len(after), -1)).any(axis=1).sum()
        assert said or unknown >= missing, f"{name} claims {column} that nobody gave"
