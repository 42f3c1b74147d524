"""A WarpTools project goes from files to picks in Warp's own layout by the commands of one page, no file renamed or edited."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import starfile

from robpicker_jax.annotations import Particles
from robpicker_jax.config import load_config
from robpicker_jax.datasets import dataset, load_particles
from tests.commands.test_docs_data import blocks, run
from tests.journeys.worlds import SHAPE, SPECIES, VOXEL, simulated, warp_lists

PAGE = "relion_warp.md"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Particles]:
    """A folder as WarpTools leaves it; the particles of each tilt series."""
    volumes, truth = simulated(tmp_path / "simulated")
    folder = tmp_path / "warp"
    (folder / "reconstruction").mkdir(parents=True)
    for name, path in volumes.items():
        shutil.move(path, folder / "reconstruction" / f"{name}_10.00Apx.mrc")
    warp_lists(folder, truth)
    monkeypatch.chdir(folder)
    return truth


def digests(folder: Path) -> dict[str, str]:
    files = [*folder.glob("*.star"), *folder.glob("reconstruction/*")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow  # tests/journeys takes the same way by `init`
def test_a_warptools_project_goes_from_files_to_picks(project: dict[str, Particles]) -> None:
    folder = Path.cwd()
    before = digests(folder)
    assert len(before) == 6
    (pick,) = blocks(PAGE, "bash")[6:]
    (settings,) = blocks(PAGE, "yaml")
    (folder / "warp.yaml").write_text(settings)
    data = load_config(folder / "warp.yaml").data
    found = dataset(folder / "reconstruction", data)
    assert [files.name for files in found["test"]] == ["TS_03_10.00Apx"]
    for split, name in (("train", "TS_01"), ("meta", "TS_02")):
        particles = load_particles(found[split][0], data, SHAPE, VOXEL)
        order = np.argsort(project[name].labels, kind="stable")
        np.testing.assert_array_equal(particles.labels, project[name].labels[order])
        np.testing.assert_allclose(particles.positions_vox, project[name].positions_vox[order], atol=1e-4)

    assert run(pick) == [0] * 5
    assert digests(folder) == before
    together = starfile.read("PICKS/picks.star")
    known = set(starfile.read("tomograms.star")["rlnTomoName"])
    for label, species in enumerate(SPECIES, start=1):
        table = starfile.read(f"PICKS/{species}.star")
        coordinates = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()
        mine = together[together["rlnClassNumber"] == label]
        np.testing.assert_allclose(coordinates, mine[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy())
        assert set(table["rlnMicrographName"]) == {"TS_03.tomostar"} < known
        assert set(table["rlnPixelSize"]) == {VOXEL}
        assert (coordinates >= 0).all()
        assert (coordinates <= np.array(SHAPE[::-1]) - 1).all()
        # Pixels from the centre of the first voxel: a pick is within a particle's radius of one that was simulated there.
        truth = project["TS_03"].positions_vox
        distances = np.linalg.norm(coordinates[:, None] - truth[None], axis=2).min(axis=1)
        assert np.median(distances) < 2.5
