"""Where Warp and RELION meet: `.tomostar` names in RELION's files and tables, and whose pixels are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.registry import format_of
from tests.annotations.star_text import star_rows, xyz

pytestmark = pytest.mark.fast

POSITIONS = np.array([[10.0, 20.0, 30.0], [40.5, 50.0, 12.25]])
SIZE = np.array([220, 240, 160])  # x y z, tilt-series pixels of 5 Å


def loop(block: str, columns: list[str], rows: list[str]) -> str:
    return f"data_{block}\n\nloop_\n" + "".join(f"_{name}\n" for name in columns) + "\n".join(rows) + "\n\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    columns = ["rlnTomoName", *(f"rlnTomoSize{a}" for a in "XYZ"), "rlnTomoTiltSeriesPixelSize"]
    path = tmp_path / "tomograms.star"
    path.write_text(loop("global", columns, [f"TS_01.tomostar {SIZE[0]} {SIZE[1]} {SIZE[2]} 5.0"]))
    return path


@pytest.mark.parametrize("options", [{}, {"fmt": "star"}, {"block": "particles"}])
def test_centred_coordinates_of_tomostars(table: Path, tmp_path: Path, options: dict) -> None:
    columns = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
    rows = [f"TS_01.tomostar {' '.join(map(str, row))}" for row in (POSITIONS * 4 - SIZE / 2) * 5.0]
    path = tmp_path / "particles.star"
    path.write_text(loop("particles", columns, rows))
    assert format_of(path, None).name == "warp"
    particles = read_annotations(path, tomograms=table, voxel_size_angstrom=20.0, **options)
    np.testing.assert_allclose(particles.positions_vox, POSITIONS)
    assert particles.tomograms.tolist() == ["TS_01"] * 2
    shifted = read_annotations(path, tomograms=table, voxel_size_angstrom=20.0, centre="N/2-1", **options)
    np.testing.assert_allclose(shifted.positions_vox, POSITIONS - 0.25)


def test_an_optimisation_set_of_warptools_counts_its_pixels(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "formats" / "warptools_particles.star"
    (tmp_path / "particles.star").write_bytes(source.read_bytes())
    names = "_rlnTomoParticlesFile particles.star\n"
    (tmp_path / "optimisation_set.star").write_text("data_\n\n" + names)
    particles = read_annotations(tmp_path / "optimisation_set.star", voxel_size_angstrom=10.0)
    expected = np.array([xyz(row, "rlnCoordinate?") for row in star_rows(source, "particles")])
    np.testing.assert_allclose(particles.positions_vox, expected * 1.2)  # pixels of 12 Å, not of the tilt series' 1.667
    assert not any(name.endswith(".tomostar") for name in particles.tomograms)


def test_relion_5_is_written_under_the_tables_names(table: Path, tmp_path: Path) -> None:
    particles = Particles(POSITIONS, [1, 2], tomograms=["TS_01"] * 2)
    path = tmp_path / "out.star"
    write_annotations(path, particles, fmt="relion5", voxel_size_angstrom=20.0, tomograms=table)
    rows = star_rows(path, "particles")
    assert [row["rlnTomoName"] for row in rows] == ["TS_01.tomostar"] * 2
    for row, position in zip(rows, POSITIONS, strict=True):
        np.testing.assert_allclose(xyz(row, "rlnCenteredCoordinate?Angst"), (position * 4 - SIZE / 2) * 5.0, atol=1e-4)


def test_a_stated_tilt_series_pixel_counts_without_tomogram_names(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    write_annotations(path, Particles(POSITIONS, [1, 2]), fmt="star", voxel_size_angstrom=20.0, binning=4)
    np.testing.assert_allclose(read_annotations(path, voxel_size_angstrom=20.0).positions_vox, POSITIONS)
