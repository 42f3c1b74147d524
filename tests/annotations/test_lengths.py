"""Lengths that lists state or leave open: pixels of their own, fractions of the box, and options that contradict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import write_mrc

POSITIONS = np.array([[10.0, 20.0, 30.0], [40.5, 50.0, 12.25]])
SHAPE = (64, 96, 128)  # z y x
SIZE = np.array(SHAPE[::-1])


def star(columns: str, *rows: str, optics: tuple[str, str] | None = None) -> str:
    """A particles table of RELION's after x y z, and an optics table (columns, row)."""
    blocks = [] if optics is None else [("optics", optics[0], [optics[1]])]
    blocks.append(("particles", "CoordinateX CoordinateY CoordinateZ " + columns, list(rows)))
    return "".join(
        f"data_{name}\n\nloop_\n" + "".join(f"_rln{column}\n" for column in names.split()) + "\n".join(lines) + "\n\n"
        for name, names, lines in blocks
    )


def read_star(tmp_path: Path, text: str, **options: Any) -> np.ndarray:
    path = tmp_path / "p.star"
    path.write_text(text, encoding="utf-8")
    return read_annotations(path, **options).positions_vox


def rows_of(positions: np.ndarray, *rest: str) -> list[str]:
    return [" ".join([*map(repr, row), *rest]) for row in positions.tolist()]


# ---- a pixel size that the file states -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "values", "optics"),
    [
        ("PixelSize", "2.5", None),
        ("ImagePixelSize", "2.5", None),
        ("OpticsGroup", "1", ("OpticsGroup ImagePixelSize", "1 2.5")),
        ("OpticsGroup", "1", ("OpticsGroup MicrographOriginalPixelSize", "1 2.5")),
        ("Magnification DetectorPixelSize", "10000 2.5", None),
        ("DetectorPixelSize Magnification", "5.0 20000", None),
        ("TomoName ImagePixelSize", "TS_1 2.5", None),
        ("MicrographName ImagePixelSize", "TS_1.mrc 2.5", None),
        ("MicrographName PixelSize OpticsGroup", "TS_1.tomostar 2.5 1", ("OpticsGroup ImagePixelSize", "1 9.9")),
    ],
)
@pytest.mark.parametrize("voxel_size", [2.5, 10.0, 12.23])
def test_a8_a_stated_pixel_size_counts(
    tmp_path: Path, columns: str, values: str, optics: tuple[str, str] | None, voxel_size: float
) -> None:
    """Whatever the tomograms are called, and whichever column states it: Å = pixels times 2.5, voxels = Å / voxel size."""
    text = star(columns, *rows_of(POSITIONS * voxel_size / 2.5, *values.split()), optics=optics)
    np.testing.assert_allclose(read_star(tmp_path, text, voxel_size_angstrom=voxel_size), POSITIONS)


def test_a8_detector_values_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    text = star("Magnification DetectorPixelSize", *rows_of(POSITIONS, "0", "0"))
    np.testing.assert_allclose(read_star(tmp_path, text, voxel_size_angstrom=10.0), POSITIONS)
    with pytest.raises(InputError, match="rlnPixelSize is -1, not a length"):
        read_star(tmp_path, star("PixelSize", *rows_of(POSITIONS, "-1")), voxel_size_angstrom=10.0)


def test_a8_the_cases_from_the_field(shared_data: Path) -> None:
    cases = shared_data / "cases"
    found = read_annotations(cases / "warp1_pixel_size.star", voxel_size_angstrom=12.23).positions_vox
    np.testing.assert_allclose(found, [[183.114, 296.17, 187.484], [79.6, 100.0, 120.2]], atol=1e-6)
    for factor in (1, 2):
        found = read_annotations(cases / "detector_pixel.star", voxel_size_angstrom=2.62 * factor).positions_vox
        np.testing.assert_allclose(found, np.array([[2276.65, 1846.63, 388.959]]) / factor)


@pytest.mark.parametrize("column", ["PixelSize", "ImagePixelSize", "DetectorPixelSize"])
@pytest.mark.parametrize("fmt", ["star", "warp", "relion5"])
def test_a8_a_list_written_anew_states_its_own_pixels(tmp_path: Path, column: str, fmt: str) -> None:
    """The old statement, kept as an extra column, would be believed when the new list is read."""
    text = star(f"{column} Magnification", *rows_of(POSITIONS * 4, "2.5", "10000"))
    (tmp_path / "old.star").write_text(text)
    size = {"voxel_size_angstrom": 10.0, "shape_zyx": SHAPE}
    particles = read_annotations(tmp_path / "old.star", **size)
    write_annotations(tmp_path / "new.star", particles, fmt=fmt, **size)
    np.testing.assert_allclose(read_annotations(tmp_path / "new.star", **size).positions_vox, POSITIONS, atol=1e-4)


def test_a8_a_stated_pixel_size_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with gathered_notes() as notes:
        found = read_star(tmp_path, star("PixelSize", *rows_of(POSITIONS, "2.5")))
    np.testing.assert_allclose(found, POSITIONS)
    assert "pixels of 2.5 Å (rlnPixelSize) are taken as voxels" in notes[0]


def test_a2_origins_in_pixels_count_for_centred_coordinates_too(tmp_path: Path) -> None:
    """The kind's cousin: a shift that another column than usual states was dropped."""
    centred = (POSITIONS - SIZE / 2) * 10.0
    options: dict[str, Any] = {"shape_zyx": SHAPE, "voxel_size_angstrom": 10.0}
    for columns, values in (("", []), (" PixelSize", ["2.5"])):
        text = star("OriginX OriginY OriginZ" + columns, *rows_of(centred, "4", "0", "-8", *values))
        for axis in "XYZ":
            text = text.replace(f"rlnCoordinate{axis}", f"rlnCenteredCoordinate{axis}Angst")
        given = options if columns else options | {"pixel_size_angstrom": 2.5}
        np.testing.assert_allclose(read_star(tmp_path, text, **given), POSITIONS - [1, 0, -2])
        if not columns:
            with pytest.raises(InputError, match="origins are in pixels"):
                read_star(tmp_path, text, **options)


# ---- fractions of the box ------------------------------------------------------------------------------------------


def test_a5_fractions_are_scaled_where_the_volume_is_known_else_refused(tmp_path: Path) -> None:
    text = star("MicrographName", *rows_of(POSITIONS / SIZE, "TS_1.tomostar"))
    with gathered_notes() as notes:
        np.testing.assert_allclose(read_star(tmp_path, text, shape_zyx=SHAPE), POSITIONS)
    assert len(notes) == 1 and "fractions of the box" in notes[0]  # noqa: PT018
    for options in ({}, {"voxel_size_angstrom": 10.0}, {"binning": 2.0}):
        with pytest.raises(InputError, match="fractions of the box, whose size is not known"):
            read_star(tmp_path, text, **options)
    write_mrc(tmp_path / "t.mrc", np.zeros(SHAPE, np.float32), 10.0)
    out = tmp_path / "o.csv"
    assert call(convert.main, [str(tmp_path / "p.star"), str(out)]) == 2
    assert call(convert.main, [str(tmp_path / "p.star"), str(out), "--volume", str(tmp_path / "t.mrc")]) == 0
    np.testing.assert_allclose(read_annotations(out).positions_vox, POSITIONS)


def test_a5_fractions_with_origins_and_a_tomograms_table(tmp_path: Path) -> None:
    columns = "TomoName OriginXAngst OriginYAngst OriginZAngst"
    text = star(columns, *rows_of(POSITIONS / SIZE, "TS_1", "20", "0", "-10"))
    table = tmp_path / "tomograms.star"
    names = ["TomoName", "TomoSizeX", "TomoSizeY", "TomoSizeZ", "TomoTiltSeriesPixelSize", "TomoTomogramBinning"]
    size = " ".join(map(str, SIZE * 4))
    table.write_text("data_\n\nloop_\n" + "".join(f"_rln{n}\n" for n in names) + f"TS_1 {size} 2.5 4\n")
    expected = POSITIONS - [2, 0, -1]
    for options in ({"shape_zyx": SHAPE}, {"tomograms": table}):
        found = read_star(tmp_path, text, voxel_size_angstrom=10.0, **options)
        np.testing.assert_allclose(found, expected)


def test_a5_the_case_from_the_field(shared_data: Path) -> None:
    path = shared_data / "cases" / "warp_fractions.star"
    found = read_annotations(path, shape_zyx=(26, 237, 232)).positions_vox
    np.testing.assert_allclose(found[0], [198.0, 203.0, 7.0], atol=1e-4)


@given(
    st.sampled_from([name for name, fmt in FORMATS.items() if fmt.unit == "voxel" and fmt.write is not None]),
    st.lists(st.tuples(*[st.floats(0.02, 0.98)] * 3), min_size=1, max_size=4),
)
def test_a5_fractions_in_any_format_that_counts_voxels(tmp_path_factory: Any, name: str, rows: list[Any]) -> None:
    fractions = np.array(rows)
    path = tmp_path_factory.mktemp("fractions") / f"p{FORMATS[name].suffixes[0]}"
    options = {"first_voxel": 0} if "first_voxel" in FORMATS[name].options else {}
    write_annotations(path, Particles(fractions, [1] * len(fractions)), fmt=name, **options)
    found = read_annotations(path, fmt=name, shape_zyx=SHAPE, **options).positions_vox
    np.testing.assert_allclose(found, fractions * SIZE, atol=1e-3)
    with pytest.raises(InputError, match="fractions of the box"):
        read_annotations(path, fmt=name, **options)


def test_a5_small_whole_numbers_are_no_fractions(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n0,0,0\n1,1,1\n")
    np.testing.assert_array_equal(read_annotations(tmp_path / "p.csv").positions_vox, [[0, 0, 0], [1, 1, 1]])


# ---- options that contradict the files -----------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Tomograms of 2.5 Å pixels, binned four times: voxels of 10 Å."""
    path = tmp_path / "tomograms.star"
    names = ["TomoName", "TomoSizeX", "TomoSizeY", "TomoSizeZ", "TomoTiltSeriesPixelSize", "TomoTomogramBinning"]
    size = " ".join(map(str, SIZE * 4))
    path.write_text("data_\n\nloop_\n" + "".join(f"_rln{name}\n" for name in names) + f"TS_1 {size} 2.5 4\n")
    return path


def test_a12_a_voxel_size_that_contradicts_the_tomograms_table(table: Path, tmp_path: Path) -> None:
    centred = (POSITIONS - SIZE / 2) * 10.0
    text = star("TomoName", *rows_of(centred, "TS_1"))
    for axis in "XYZ":
        text = text.replace(f"rlnCoordinate{axis}", f"rlnCenteredCoordinate{axis}Angst")
    for options in ({}, {"voxel_size_angstrom": 10.0}, {"voxel_size_angstrom": 9.96}):
        np.testing.assert_allclose(read_star(tmp_path, text, tomograms=table, **options), POSITIONS, rtol=5e-3)
    with pytest.raises(InputError, match=r"voxel size of 20 is given, but the table says 10.*binning=8"):
        read_star(tmp_path, text, tomograms=table, voxel_size_angstrom=20.0)
    found = read_star(tmp_path, text, tomograms=table, voxel_size_angstrom=20.0, binning=8)
    np.testing.assert_allclose(found, POSITIONS / 2)
    with pytest.raises(InputError, match="voxel size of 20 is given, but binning says 15"):
        read_star(tmp_path, text, tomograms=table, voxel_size_angstrom=20.0, binning=6)
    given = [str(tmp_path / "p.star"), str(tmp_path / "o.csv"), "--tomograms-table", str(table)]
    assert call(convert.main, [*given, "--voxel-size", "20"]) == 2
    assert call(convert.main, given) == 0


def test_a12_relion_5_is_not_written_against_the_table(table: Path, tmp_path: Path) -> None:
    particles, path = Particles(POSITIONS, [1, 1], tomograms=["TS_1"] * 2), tmp_path / "out.star"
    for options, message in (
        ({"voxel_size_angstrom": 20.0}, "the table says 10"),
        ({"voxel_size_angstrom": 10.0, "pixel_size_angstrom": 5.0}, "for TS_1 the table says 2.5"),
    ):
        with pytest.raises(InputError, match=message):
            write_annotations(path, particles, fmt="relion5", tomograms=table, **options)
    write_annotations(path, particles, fmt="relion5", tomograms=table, voxel_size_angstrom=20.0, binning=8)
    found = read_annotations(path, tomograms=table, voxel_size_angstrom=20.0, binning=8).positions_vox
    np.testing.assert_allclose(found, POSITIONS, atol=1e-4)


def test_a12_options_that_contradict_the_lists_own_pixels(tmp_path: Path) -> None:
    text = star("TomoName TomoTiltSeriesPixelSize", *rows_of(POSITIONS * 4, "TS_1", "2.5"))
    for options in ({}, {"binning": 4.0}, {"pixel_size_angstrom": 2.5}):
        np.testing.assert_allclose(read_star(tmp_path, text, voxel_size_angstrom=10.0, **options), POSITIONS)
    for options in ({"binning": 2.0}, {"pixel_size_angstrom": 5.0}):
        with pytest.raises(InputError, match=r"pixel size of 5 is given, but rlnTomoTiltSeriesPixelSize says 2.5"):
            read_star(tmp_path, text, voxel_size_angstrom=10.0, **options)
    with pytest.raises(InputError, match="leave one of them out"):
        read_star(tmp_path, text, voxel_size_angstrom=10.0, binning=4.0, pixel_size_angstrom=5.0)
    image = star(
        "ImagePixelSize", *rows_of(POSITIONS * 4, "9.9")
    )  # says the images' pixels, perhaps not the positions'
    with gathered_notes() as notes:
        found = read_star(tmp_path, image, voxel_size_angstrom=10.0, binning=4.0)
    np.testing.assert_allclose(found, POSITIONS)
    assert "not of rlnImagePixelSize, 9.9" in notes[0]


def test_a12_convert_refuses_what_the_volume_contradicts(tmp_path: Path) -> None:
    write_mrc(tmp_path / "t.mrc", np.zeros(SHAPE, np.float32), 10.0)
    write_annotations(tmp_path / "p.csv", Particles(POSITIONS, [1, 1]))
    given = [str(tmp_path / "p.csv"), str(tmp_path / "o.json"), "--volume", str(tmp_path / "t.mrc")]
    x, y, z = SHAPE[::-1]
    assert call(convert.main, [*given, "--voxel-size", "20"]) == 2
    assert call(convert.main, [*given, "--tomogram-shape", f"{z},{y},{x}"]) == 2
    assert call(convert.main, [*given, "--voxel-size", "10", "--tomogram-shape", f"{x},{y},{z}"]) == 0
