"""Three worlds in which a new user's data lie: a WarpTools project, a copick project, arrays in a notebook; all tiny."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.config import load_config
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.volumes import read_volume
from tests.commands.test_docs_data import star
from tests.tiny import write_tiny

SPECIES = {"apoferritin": 60.0, "p97": 70.0}
SHAPE = (33, 64, 72)  # an odd edge, where centres differ by half a voxel
VOXEL, BINNING = 10.0, 4
UNBINNED = (290, 258, 131)  # x y z in tilt-series pixels: no multiples of the binning, as WarpTools rounds its volumes
NAMES = {"train": "TS_01", "meta": "TS_02", "test": "TS_03"}
"""What each simulated tomogram is for; further ones are of test."""
SMALL = [
    "--patches.size=24",
    "--patches.shift_vox=4",
    "--model.widths=[6,8]",
    "--model.convs_per_block=1",
    "--model.bottleneck_convs=1",
    "--model.correction=tied",
    "--model.alpha_bias=-3",  # what is proposed suits a correction with a network of its own
    "--train.steps=48",
    "--train.batch_size=2",
    "--train.meta_warmup_steps=20",
    "--train.validate_every=48",
    "--train.checkpoint_every=48",
    "--train.inner.learning_rate=1.0e-2",
    "--inference.tile=32",
    "--inference.overlap_vox=8",
]
"""Sizes with which a run takes seconds, in place of those that `init` proposes for this machine."""


def simulated(folder: Path, *, test: int = 1) -> tuple[dict[str, Path], dict[str, Particles]]:
    """Volumes and particles of two tomograms and `test` more, by the names that they have in their world."""
    species = [
        {"name": name, "phantom": name, "radius_vox": radius / VOXEL, "copies": 8} for name, radius in SPECIES.items()
    ]
    overrides = [
        f"data.species={json.dumps(species)}",
        f"simulation.shape_zyx={list(SHAPE)}",
        f"simulation.voxel_size_angstrom={VOXEL}",
        "simulation.snr=20",
        f"simulation.test={test}",
        "label_noise={}",
    ]
    folder.mkdir()
    config = load_config(write_tiny(folder / "tiny.yaml"), overrides)
    made = folder / "made"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), made)
    stems = {name: made / split / f"{split}_000" for split, name in NAMES.items()}
    stems |= {f"TS_{number + 3:02}": made / "test" / f"test_{number:03}" for number in range(test)}
    lists = {name: read_annotations(stem.with_name(f"{stem.name}_objl.xml")) for name, stem in stems.items()}
    return {name: stem.with_suffix(".mrc") for name, stem in stems.items()}, lists


def warp_project(tmp_path: Path) -> tuple[Path, dict[str, Particles]]:
    """A folder as WarpTools leaves it, with a list for each species, in two conventions; the particles of each tilt series."""
    volumes, truth = simulated(tmp_path / "simulated")
    folder = tmp_path / "warp"
    home = folder / "warp_tiltseries/reconstruction"
    (home / "even").mkdir(parents=True)
    for name, path in volumes.items():
        shutil.copy(path, home / f"{name}_10.00Apx.mrc")
        shutil.copy(path, home / f"even/{name}_10.00Apx.mrc")
        (folder / f"warp_tiltseries/{name}.xml").write_text("<TiltSeries><Angles>1</Angles></TiltSeries>")
    (folder / "matching").mkdir()
    warp_lists(folder / "matching", truth)
    return folder, truth


def warp_lists(folder: Path, truth: Mapping[str, Particles]) -> None:
    """WarpTools' tomograms table, and a list for each species of TS_01 and TS_02: in centred Å, and in pixels."""
    columns = ["rlnTomoName", *(f"rlnTomoSize{axis}" for axis in "XYZ"), "rlnTomoTiltSeriesPixelSize"]
    sizes = " ".join(map(str, UNBINNED))
    table = star("global", columns, [f"{name}.tomostar {sizes} {VOXEL / BINNING}" for name in truth])
    (folder / "tomograms.star").write_text(table)
    listed = [truth[name].with_(tomograms=[f"{name}.tomostar"] * len(truth[name])) for name in ("TS_01", "TS_02")]
    everything = Particles.concatenate(listed)
    first, second = (everything.select(everything.labels == label) for label in (1, 2))
    # As WarpTools' export has it: counted from the middle of the unbinned volume.
    centred = first.positions_vox * VOXEL - np.array(UNBINNED) / 2 * (VOXEL / BINNING)
    rows = [f"{n} {x:.4f} {y:.4f} {z:.4f}" for n, (x, y, z) in zip(np.asarray(first.tomograms), centred, strict=True)]
    columns = ["rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")]
    (folder / "apoferritin.star").write_text(star("particles", columns, rows))
    # As template matching has it.
    bare = Particles(second.positions_vox, np.zeros(len(second), np.int32), tomograms=second.tomograms)
    write_annotations(folder / "p97.star", bare, fmt="warp", voxel_size_angstrom=VOXEL)


def copick_project(tmp_path: Path) -> tuple[Path, dict[str, Particles]]:
    """A copick project in which one person picked two of three runs; the particles of each run."""
    copick = pytest.importorskip("copick", reason="the extra copick is not installed")
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    from copick.models import CopickPoint

    volumes, truth = simulated(tmp_path / "simulated")
    folder = tmp_path / "project"
    (folder / "overlay").mkdir(parents=True)
    objects = [
        {"name": name, "is_particle": True, "label": label, "radius": radius}
        for label, (name, radius) in enumerate(SPECIES.items(), start=1)
    ]
    settings = {
        "name": "p",
        "description": "",
        "version": "1.0",
        "pickable_objects": objects,
        "config_type": "filesystem",
        "overlay_root": f"local://{folder / 'overlay'}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    (folder / "copick_config.json").write_text(json.dumps(settings))
    root = copick.from_file(str(folder / "copick_config.json"))
    for name, path in volumes.items():
        run = root.new_run(name)
        run.new_voxel_spacing(VOXEL).new_tomogram("wbp").from_numpy(read_volume(path).data)
        for label, species in enumerate(SPECIES, start=1):
            if name != "TS_03":
                picks = run.new_picks(species, "1", "ann")
                positions = truth[name].positions_vox[truth[name].labels == label] * VOXEL
                picks.points = [CopickPoint(location=dict(zip("xyz", at, strict=True))) for at in positions.tolist()]
                picks.store()
    return folder, truth


def arrays(tmp_path: Path) -> tuple[dict[str, np.ndarray], dict[str, Particles]]:
    """Volumes (z, y, x) as a notebook holds them, and their particles."""
    volumes, truth = simulated(tmp_path / "simulated")
    return {name: read_volume(path).data for name, path in volumes.items()}, truth
