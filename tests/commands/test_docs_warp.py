"""A WarpTools project goes from files to picks in Warp's own layout by the commands of one page, no file renamed or edited."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import starfile

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.config import load_config
from robpicker_jax.datasets import dataset, load_particles
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from tests.commands.test_docs_data import blocks, run, star
from tests.tiny import write_tiny

PAGE = "relion_warp.md"
SPECIES = [("apoferritin", 6), ("p97", 7)]
SHAPE = (33, 64, 72)  # an odd edge, where centres differ by half a voxel
VOXEL, BINNING = 10.0, 4
UNBINNED = (290, 258, 131)  # x y z in tilt-series pixels: no multiples of the binning, as WarpTools rounds its volumes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Particles]:
    """A folder as WarpTools leaves it; the particles of each tilt series."""
    species = [{"name": name, "phantom": name, "radius_vox": radius, "copies": 8} for name, radius in SPECIES]
    overrides = [
        f"data.species={json.dumps(species)}",
        f"simulation.shape_zyx={list(SHAPE)}",
        f"simulation.voxel_size_angstrom={VOXEL}",
        "simulation.snr=20",
        "label_noise={}",
    ]
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), overrides)
    simulated = tmp_path / "simulated"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), simulated)
    folder = tmp_path / "warp"
    (folder / "reconstruction").mkdir(parents=True)
    truth = {}
    for number, split in enumerate(("train", "meta", "test"), start=1):
        name = f"TS_{number:02}"
        shutil.move(simulated / split / f"{split}_000.mrc", folder / "reconstruction" / f"{name}_10.00Apx.mrc")
        truth[name] = read_annotations(simulated / split / f"{split}_000_objl.xml")
    columns = ["rlnTomoName", *(f"rlnTomoSize{axis}" for axis in "XYZ"), "rlnTomoTiltSeriesPixelSize"]
    sizes = " ".join(map(str, UNBINNED))
    table = star("global", columns, [f"{name}.tomostar {sizes} {VOXEL / BINNING}" for name in truth])
    (folder / "tomograms.star").write_text(table)
    listed = [
        particles.with_(tomograms=[f"{name}.tomostar"] * len(particles))
        for name, particles in truth.items()
        if name != "TS_03"
    ]
    everything = Particles.concatenate(listed)
    first, second = (everything.select(everything.labels == label) for label in (1, 2))
    # One list as WarpTools' export has it, in centred Å, which is counted from the middle of the unbinned volume …
    centred = first.positions_vox * VOXEL - np.array(UNBINNED) / 2 * (VOXEL / BINNING)
    rows = [
        f"{name} {x:.4f} {y:.4f} {z:.4f}" for name, (x, y, z) in zip(first.tomograms.tolist(), centred, strict=True)
    ]
    columns = ["rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")]
    (folder / "apoferritin.star").write_text(star("particles", columns, rows))
    # … and one as template matching has it, in pixels.
    bare = Particles(second.positions_vox, np.zeros(len(second), np.int32), tomograms=second.tomograms)
    write_annotations(folder / "p97.star", bare, fmt="warp", voxel_size_angstrom=VOXEL)
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
    for label, (species, _) in enumerate(SPECIES, start=1):
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
