"""Faults met in the field: a row with too few columns (B21), a reader that goes away (B11)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.diagnosis.hypotheses import readings, stated_pixels
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

HEADER = "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnTomoName #4\n"


@pytest.mark.parametrize(
    ("row", "cells"), [("1 2 3", 3), ("1 2 'a b'", 3), ("1 2 3 4 5", 5), ('1 2 3 "a b" c', 5), ("1", 1)]
)
def test_b21_a_row_with_another_number_of_cells_is_named_by_its_line(tmp_path: Path, row: str, cells: int) -> None:
    path = tmp_path / "a.star"
    path.write_text(f"{HEADER}{row}\n")
    with pytest.raises(InputError, match=rf"a\.star: line 8: {cells} cells in a table of 4 columns"):
        read_annotations(path)
    path.write_text(f"{HEADER}1 2 3 'TS 1'\n4 5 6 TS_1\n\n{row}\n")
    with pytest.raises(InputError, match=rf"line 11: {cells} cells in a table of 4 columns"):
        read_annotations(path)


def test_b21_fewer_columns_in_the_field(shared_data: Path) -> None:
    with pytest.raises(InputError, match="line 9: 4 cells in a table of 5 columns"):
        read_annotations(shared_data / "cases" / "fewer_columns.star")


def test_b21_the_doctor_tries_the_pixel_sizes_that_lists_state() -> None:
    particles = Particles(np.ones((2, 3)), [1, 1], extra={"rlnPixelSize": [1.35, 1.35], "other": [3.0, 4.0]})
    assert stated_pixels([particles]) == [1.35]
    names = {reading.name: reading.factor for reading in readings(10.0, [1.35])}
    assert names["in pixels of 1.35 Å"] == pytest.approx(1 / 7.407, rel=1e-3)
    assert not any("1.35" in reading.name for reading in readings(None, [1.35]))
    assert any(reading.factor == pytest.approx(1 / 5) for reading in readings(7.84))


@pytest.mark.parametrize("target", ["b.xml", "b.star"])
def test_b11_convert_goes_on_when_nobody_reads_its_output(tmp_path: Path, target: str) -> None:
    write_annotations(tmp_path / "a.csv", Particles([[1, 2, 3]], [1]))
    code = (
        "import os, sys; from robpicker_jax.__main__ import main\n"
        f"sys.argv = ['robpicker', 'convert', {str(tmp_path / 'a.csv')!r}, {str(tmp_path / target)!r}]\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "the output is not read any more; the work goes on" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(read_annotations(tmp_path / target)) == 1
