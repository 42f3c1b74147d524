"""The configurations of published systems and data sets: they load, and the published RobPicker's runs end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import SimulationConfig, Species, load_config
from robpicker_jax.models import build_backbone, check_edge
from robpicker_jax.molecules import species_density
from robpicker_jax.picking.score_maps import check_picking
from robpicker_jax.simulation.tomogram import simulate_at
from robpicker_jax.training.experiment import check_names
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.volumes import write_mrc

CONFIGS = Path(__file__).parents[2] / "configs"
BINNING = 4  # of the look-alike: 31 Å a voxel, so that it fits a test
SHAPE = (48, 96, 96)
CORNER = np.array([30, 40, 44])  # x y z of its first voxel, where both species are in every list


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_can_run(path: Path) -> None:
    """Names and options are known, edges fit the network, and the head says how to run it and what came of it."""
    config = load_config(path)
    n_classes = len(config.data.species) + 1
    check_names(config.model, config.train, config.evaluation, n_classes)
    check_picking(config.picking)
    stride = build_backbone(config.model, n_classes).stride
    check_edge(config.patches.size, stride, where="patches.size")
    check_edge(config.inference.tile_edge(config.patches.size), stride, where="inference.tile")
    head = path.read_text().split("\n\n")[0]
    assert f"configs/{path.name}" in head or path.stem == "quickstart"
    for word in ("hardware", "time", "result"):
        assert f"# {word}" in head
    species = yaml.safe_load(path.read_text())["data"]["species"]
    assert all("radius_angstrom" in entry for entry in species)  # users copy these files and change radii in Å


def test_the_published_schedule_is_7550_updates() -> None:
    train_ = load_config(CONFIGS / "published_empiar_11830.yaml").train
    assert train_.steps * train_.inner_steps == 7550
    assert train_.meta_networks == ("correction", "class_weights", "voxel_weights")
    assert train_.meta_rows == 3 * 32


def look_alike(folder: Path, lists: Path) -> None:
    """Tomograms with particles where the real ones have them: a part of each real list, four times binned."""
    species = [Species("ribosome", 4.8, phantom="ribosome"), Species("atp", 2.6, phantom="apoferritin")]
    simulation = SimulationConfig(shape_zyx=SHAPE, voxel_size_angstrom=BINNING * 7.84, snr=1.0, tilt_step_deg=6.0)
    densities = [species_density(entry, simulation.voxel_size_angstrom) for entry in species]
    names = {"train": ("0137", "0145"), "meta": ("1333",), "test": ("2814",)}
    for split, tomograms in names.items():
        (folder / split).mkdir(parents=True)
        for key, name in enumerate(tomograms):
            real = read_annotations(lists / f"empiar11830_{split}_tomo{name}_objl.xml")
            positions = real.positions_vox / BINNING - CORNER
            size = np.array(SHAPE[::-1])
            inside = real.select(((positions > 4) & (positions < size - 5)).all(axis=1))
            inside = inside.with_(positions_vox=inside.positions_vox / BINNING - CORNER)
            assert set(inside.labels) == {1, 2}
            made = simulate_at(inside, densities, simulation, key=(key, len(split)))
            write_mrc(folder / split / f"{name}.mrc", made.density, simulation.voxel_size_angstrom)
            write_annotations(folder / split / f"tomo{name}_objl.xml", inside)


@pytest.mark.slow
def test_twenty_steps_of_the_published_configuration_on_a_look_alike(shared_data: Path, tmp_path: Path) -> None:
    look_alike(tmp_path / "data", shared_data / "annotations")
    workdir = tmp_path / "run"
    smaller = {
        "data.dir": tmp_path / "data",
        "data.voxel_size_angstrom": BINNING * 7.84,
        "data.species": json.dumps([{"name": "ribosome", "radius_vox": 4.8}, {"name": "atp", "radius_vox": 2.6}]),
        "patches.size": 32,
        "model.widths": "[4, 4, 6, 8, 8]",
        "model.backbone_options": "{blocks: [1, 1, 1, 1]}",
        "train.steps": 20,
        "train.batch_size": 4,
        "train.meta_warmup_steps": 2,
        "train.validate_every": 20,
        "train.log_every": 1,
        "inference.tile": 32,
        "inference.overlap_vox": 8,
        "picking.threshold_options.low": 0.02,
    }
    flags = [str(part) for name, value in smaller.items() for part in (f"--{name}", value)]
    config = CONFIGS / "published_empiar_11830.yaml"
    assert call(train.main, ["--config", str(config), "--workdir", str(workdir), *flags]) == 0
    rows = [row for row in read_metrics(workdir / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert np.isfinite([row["patch_loss"] for row in rows]).all()
    meta = [row for row in rows if row["step"] > 2]
    # When the warm-up ends the loss rises tenfold: the untrained correction puts a little of each species into every
    # background voxel, where species weigh 64 and 512 times as much as the background.
    losses = [row["patch_loss"] for row in meta]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(row["hypergradient_norm"] > 0 for row in meta)
    assert all(abs(row["alpha_mean"] - 0.1192) < 0.002 for row in meta)
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["rule"] == "robpicker"
    assert sum(row["true"] for row in result["classes"]) > 20
