"""A copick project of two users goes from files to picks in its overlay by the commands of one page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import read_annotations
from robpicker_jax.config import load_config
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.volumes import read_volume
from tests.commands.test_docs_data import blocks, run
from tests.tiny import TINY, write_tiny

PAGE = "formats.md"
SPECIES = [("apoferritin", 6), ("p97", 7)]
VOXEL = 10.0


def test_a_copick_project_goes_from_files_to_picks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copick = pytest.importorskip("copick", reason="the extra copick is not installed")
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    from copick.models import CopickPoint

    species = [{"name": name, "phantom": name, "radius_vox": radius, "copies": 8} for name, radius in SPECIES]
    overrides = [
        f"data.species={json.dumps(species)}",
        "simulation.shape_zyx=[32,64,72]",
        f"simulation.voxel_size_angstrom={VOXEL}",
        "simulation.snr=20",
        "simulation.train=2",
        "label_noise={}",
    ]
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), overrides)
    simulated, folder = tmp_path / "simulated", tmp_path / "project"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), simulated)
    (folder / "overlay").mkdir(parents=True)
    monkeypatch.chdir(folder)
    settings = {
        "name": "p",
        "description": "",
        "version": "1.0",
        "pickable_objects": [
            {"name": name, "is_particle": True, "label": label, "radius": VOXEL * radius}
            for label, (name, radius) in enumerate(SPECIES, start=1)
        ],
        "config_type": "filesystem",
        "overlay_root": f"local://{folder / 'overlay'}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    Path("copick_config.json").write_text(json.dumps(settings))
    root = copick.from_file("copick_config.json")
    truth = {}
    for number, stem in enumerate(("train/train_000", "train/train_001", "meta/meta_000", "test/test_000"), start=1):
        made = root.new_run(f"TS_{number}")
        volume = read_volume(simulated / f"{stem}.mrc")
        made.new_voxel_spacing(VOXEL).new_tomogram("wbp").from_numpy(volume.data)
        truth[made.name] = particles = read_annotations(simulated / f"{stem}_objl.xml")
        for label, (name, _) in enumerate(SPECIES, start=1):
            right = particles.positions_vox[particles.labels == label] * VOXEL
            for user, positions in (("ann", right), ("ben", right[:1] + 40.0)):
                if number < 4:
                    picks = made.new_picks(name, "1", user)
                    picks.points = [
                        CopickPoint(location=dict(zip("xyz", at, strict=True))) for at in positions.tolist()
                    ]
                    picks.store()
    theirs = {path: path.read_bytes() for path in (folder / "overlay").rglob("*.json")}

    chosen = next(loaded for text in blocks(PAGE, "yaml") if "copick" in (loaded := yaml.safe_load(text))["data"])
    sizes = {key: TINY[key] for key in ("model", "train", "inference")}
    sizes["train"] = sizes["train"] | {"steps": 40, "validate_every": 40, "checkpoint_every": 40}
    sizes["train"]["inner"] = {"name": "adam", "learning_rate": 1e-2}
    Path("copick.yaml").write_text(yaml.safe_dump(chosen | sizes | {"patches": {"size": 24, "shift_vox": 4}}))
    (commands,) = blocks(PAGE, "bash")
    assert run(commands) == [0, 0, 0]

    assert {path: path.read_bytes() for path in theirs} == theirs
    found = copick.from_file("copick_config.json").get_run("TS_4").get_picks(user_id="robpicker", session_id="0")
    assert {picks.pickable_object_name for picks in found} <= {name for name, _ in SPECIES}
    positions = np.concatenate([picks.numpy()[0] for picks in found]) / VOXEL
    distances = np.linalg.norm(positions[:, None] - truth["TS_4"].positions_vox[None], axis=2).min(axis=1)
    assert len(distances) >= 4
    assert np.median(distances) < 2.5
