"""Flags against what a table or a header states (field faults A12), and which side a table belongs to (B7, B8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.stated import agreed_length, agreed_shape
from robpicker_jax.commands import doctor, evaluate
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.convert import main
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc

SHAPE = (26, 40, 48)
POSITIONS = np.array([[10.0, 12.0, 14.0], [30.0, 8.0, 20.0]])
TABLE = """
data_global

loop_
_rlnTomoName #1
_rlnTomoSizeX #2
_rlnTomoSizeY #3
_rlnTomoSizeZ #4
_rlnTomoTiltSeriesPixelSize #5
_rlnTomoTomogramBinning #6
TS_01 192 160 104 2.5 4.0
TS_02 192 160 104 5.0 4.0
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "tomograms.star").write_text(TABLE)
    return tmp_path / "tomograms.star"


@pytest.fixture
def centred(tmp_path: Path) -> Path:
    """A RELION 5 list of TS_01, whose voxels are of 10 Å."""
    particles = Particles(POSITIONS, [1, 1], tomograms=["TS_01"] * 2)
    write_annotations(tmp_path / "r5.star", particles, fmt="relion5", voxel_size_angstrom=10.0, shape_zyx=SHAPE)
    return tmp_path / "r5.star"


def convert(*arguments: object) -> int:
    return call(main, [str(argument) for argument in arguments])


def test_a12_a_voxel_size_that_the_table_contradicts_is_refused(
    table: Path, centred: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = centred.with_name("o.csv")
    assert convert(centred, out, "--tomograms-table", table, "--voxel-size", 20) == 2
    said = capsys.readouterr().err
    assert "20" in said
    assert "10" in said
    assert not out.exists()
    for agreeing in (["--voxel-size", 10], []):
        assert convert(centred, out, "--tomograms-table", table, "--overwrite", *agreeing) == 0
        np.testing.assert_allclose(read_annotations(out).positions_vox, POSITIONS, atol=1e-4)


def test_a12_a_shape_that_the_table_contradicts_is_refused(table: Path, centred: Path) -> None:
    out, arguments = centred.with_name("o.csv"), ["--tomograms-table", table, "--voxel-size", 10]
    assert convert(centred, out, *arguments, "--tomogram-shape", "48,40,52") == 2
    assert convert(centred, out, *arguments, "--tomogram-shape", "48,40,26") == 0


def test_a12_flags_that_the_volume_contradicts_are_refused(
    centred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mrc(tmp_path / "v.mrc", np.zeros(SHAPE, np.float32), 10.0)
    for flags in (["--voxel-size", 20], ["--tomogram-shape", "48,40,27"]):
        assert convert(centred, tmp_path / "o.csv", "--volume", tmp_path / "v.mrc", *flags) == 2
        assert "v.mrc" in capsys.readouterr().err
    assert convert(centred, tmp_path / "o.csv", "--volume", tmp_path / "v.mrc", "--voxel-size", 10.05) == 0


def test_a12_evaluate_and_doctor_refuse_two_voxel_sizes(
    tiny_config: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tiny_data / "test"
    further = ["--config", str(tiny_config), "--data.voxel_size_angstrom=22", "--voxel-size", "11"]
    assert call(evaluate.main, ["--truth", str(truth), "--picks", str(truth), *further]) == 2
    assert "11 Å" in capsys.readouterr().err
    assert call(doctor.main, ["--data", str(tiny_data), *further]) == 2
    assert "11 Å" in capsys.readouterr().err


@given(st.lists(st.none() | st.floats(1, 100), max_size=5))
@example([50.0, 49.0])
@example([50.0, 48.9])
def test_lengths_agree_or_are_refused(sizes: list[float | None]) -> None:
    stated = [(f"place {k}", size) for k, size in enumerate(sizes)]
    known = [size for size in sizes if size is not None]
    if all(abs(size - known[0]) <= 0.02 * known[0] for size in known):
        assert agreed_length(stated) == (known[0] if known else None)
    else:
        with pytest.raises(InputError, match="place"):
            agreed_length(stated)


def test_shapes_agree_or_are_refused() -> None:
    assert agreed_shape([("a", None), ("b", (1, 2, 3))]) == (1, 2, 3)
    with pytest.raises(InputError, match=r"a says 3 2 1 voxels .* b says 3 2 2"):
        agreed_shape([("a", (1, 2, 3)), ("b", (2, 2, 3))])


@pytest.mark.parametrize("suffix", [".xml", ".csv"])
def test_b8_a_tomograms_table_goes_to_the_side_that_takes_it(suffix: str, table: Path, tmp_path: Path) -> None:
    particles = Particles(POSITIONS, [1, 1], tomograms=["TS_01"] * 2)
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.star"
    write_annotations(source, particles)
    arguments = ["--to", "relion5", "--tomograms-table", table, "--tomogram-name", "TS_01", "--voxel-size", 10]
    assert convert(source, target, *arguments) == 0
    back = read_annotations(target, tomograms=table)
    np.testing.assert_allclose(back.positions_vox, POSITIONS, atol=1e-3)
    assert convert(target, tmp_path / "back.xml", "--tomograms-table", table) == 0
    np.testing.assert_allclose(read_annotations(tmp_path / "back.xml").positions_vox, POSITIONS, atol=1e-3)


@pytest.mark.parametrize("first", ["in.xml", "in.star"])
def test_b8_of_several_lists_each_gets_the_table_that_takes_it(first: str, table: Path, tmp_path: Path) -> None:
    particles = Particles(POSITIONS, [1, 1], tomograms=["TS_01"] * 2)
    write_annotations(tmp_path / "in.xml", particles)
    write_annotations(tmp_path / "in.star", particles, fmt="relion5", tomograms=table, voxel_size_angstrom=10.0)
    second = {"in.xml": "in.star", "in.star": "in.xml"}[first]
    flags = ["--tomograms-table", table, "--voxel-size", 10]
    assert convert(tmp_path / first, tmp_path / second, tmp_path / "out.csv", *flags) == 0
    back = read_annotations(tmp_path / "out.csv")
    np.testing.assert_allclose(back.positions_vox, np.concatenate([POSITIONS, POSITIONS]), atol=1e-3)


def test_b8_a_table_that_neither_side_takes_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotations(tmp_path / "in.xml", Particles(POSITIONS, [1, 1]))
    assert convert(tmp_path / "in.xml", tmp_path / "o.csv", "--tomograms-table", table) == 2
    assert "--tomograms-table" in capsys.readouterr().err


def test_b7_a_list_of_one_tomogram_may_be_given_another_name(tmp_path: Path) -> None:
    """Picks name their tomogram; the next program may know it by another name."""
    write_annotations(tmp_path / "in.csv", Particles(POSITIONS, [1, 1], tomograms=["rec_TS_01"] * 2))
    assert convert(tmp_path / "in.csv", tmp_path / "out.csv", "--tomogram-name", "TS_01") == 0
    assert set(read_annotations(tmp_path / "out.csv").tomograms) == {"TS_01"}
    write_annotations(tmp_path / "two.csv", Particles(POSITIONS, [1, 1], tomograms=["a", "b"]))
    assert convert(tmp_path / "two.csv", tmp_path / "out2.csv", "--tomogram-name", "TS_01") == 2
