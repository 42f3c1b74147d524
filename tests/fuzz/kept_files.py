"""Configurations, and small whole files of every kind that the product keeps for itself: runs, models, stored work."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from robpicker_jax.averaging import results as averages
from robpicker_jax.averaging.particle_set import ParticleSet
from robpicker_jax.averaging.refinement import Iteration
from robpicker_jax.averaging.resolution import ShellCorrelation
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.config import (
    DataConfig,
    InferenceConfig,
    ModelConfig,
    PickingConfig,
    Species,
    load_config,
)
from robpicker_jax.datasets import Scalings, TomogramFiles
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.matching.tiles import MapStore, Tiling, kept_core
from robpicker_jax.models.model_file import load_model_file, save_model
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network
from robpicker_jax.picking import calibration
from robpicker_jax.picking.finished import Finished
from robpicker_jax.picking.template_picker import template_picker
from robpicker_jax.reporting.data import ClassWeights, LabelExample, ReportData, SpeciesInfo, TomogramView
from robpicker_jax.reporting.stored import load_workdir, save_inputs
from robpicker_jax.reviewing import Edit, Review, ReviewList, folded, read_decisions, write_decisions
from robpicker_jax.simulation.manifest import open_manifest, write_manifest
from robpicker_jax.system.errors import InputError
from robpicker_jax.training import results
from robpicker_jax.training.run_folder import as_planned, read_config, stored_densities
from robpicker_jax.volumes import Scaling, write_mrc
from tests.fuzz.subject import SHAPE_ZYX, Subject, contents, some_particles

CONFIG = """
data:
  dir: somewhere
  meta_labels: sphere
  voxel_size_angstrom: 10.0
  species:
    - {name: ribosome, radius_vox: 4.0, copies: 3}
    - {name: "apo-ferritin", radius_vox: 3.0, copies: 2}
patches: {size: 16}
train: {steps: 4, variant: supervised}
picking: {min_score: 0.5}
"""


def config_subject(folder: Path) -> Subject:
    """A configuration."""
    (folder / "own.yaml").write_text(CONFIG)
    return Subject(contents(folder), "own.yaml", lambda path: load_config(path, []))


def workdir_subject(folder: Path) -> Subject:
    """The files that a run leaves, short of checkpoints and model, which have tests of their own."""
    rng = np.random.default_rng(2)
    particles = some_particles("csv").with_(tomograms=None, class_names=None)
    density = rng.normal(size=SHAPE_ZYX).astype(np.float32)
    options = EvaluationOptions(rule="tolerance", class_names=("ribosome", "apo-ferritin"), tolerance_vox=2.0)
    evaluation = evaluate({"TS_1": particles}, {"TS_1": particles}, options)
    view = TomogramView("TS_1", density, particles, particles, voxel_size_angstrom=10.0)
    maps = {name: rng.random((6, 6)).astype(np.float32) for name in ("image", "confidence")}
    maps |= {name: rng.integers(0, 2, (6, 6)).astype(np.int32) for name in ("noisy", "corrected", "true")}
    weights = ClassWeights("ribosome", 3.0, rng.random(5))
    species = [SpeciesInfo("ribosome", 4.0), SpeciesInfo("apo-ferritin", 3.0)]
    kept = ReportData(title="run", species=species, tomograms=[view], label_examples=[LabelExample("a", **maps)])
    save_inputs(replace(kept, weights=[weights]), folder)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "evaluation.json").write_text(json.dumps(evaluation.as_dict()))
    rows = [{"step": step, "kind": "train", "inner_loss": 1 / step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "versions.json").write_text(json.dumps({"jax": "0.8", "plan": {"micro_batches": 1}}))
    calibration.save(folder, calibration.calibrate(evaluation), ["TS_1"])
    volume = folder / "a.mrc"
    write_mrc(volume, density, 10.0)
    tomogram = TomogramFiles("a", "", volume)
    records = Finished(folder, "pick", {})
    records.add("a", tomogram, [volume])
    results.record(folder, load_config(folder / "config.yaml"), 2, {"train": {"a.mrc": {"bytes": 3}}})
    (folder / "scalings.json").write_text("{}")
    scalings = Scalings(folder / "scalings.json")
    scalings.remember(tomogram, DataConfig(), Scaling(0.0, 1.0))
    scalings.save()

    def read(path: Path) -> None:
        for look in (load_workdir, read_config, calibration.load):
            with suppress(InputError):  # each names its own file, and the others are looked at all the same
                look(path)
        config = load_config(None)
        results.outdated(path, config, {"train": {}})
        records.has("a", tomogram)
        records.own("a", tomogram)
        records.left_out("a")
        Scalings(path / "scalings.json").known(tomogram, DataConfig())
        as_planned(path, config.parallel)
        stored_densities(path)

    return Subject(contents(folder), ".", read)


def copick_subject(folder: Path) -> Subject:
    """A copick configuration, of which the species are taken."""
    objects = [
        {"name": "ribosome", "is_particle": True, "label": 1, "radius": 150.0},
        {"name": "membrane", "is_particle": False, "label": 2},
    ]
    (folder / "copick.json").write_text(json.dumps({"name": "a", "pickable_objects": objects}))
    spacing = "data.copick.voxel_spacing_angstrom=10"
    return Subject(contents(folder), "copick.json", lambda path: load_config(None, [f"data.dir={path}", spacing]))


def templates_subject(folder: Path) -> Subject:
    """The description of a template picker."""
    write_mrc(folder / "map.mrc", np.random.default_rng(3).random((8, 8, 8)).astype(np.float32), 10.0)
    (folder / "templates.yaml").write_text(_TEMPLATES)
    return Subject(contents(folder), "templates.yaml", template_picker)


def model_subject(folder: Path) -> Subject:
    """A trained model."""
    card = ModelCard(
        model=ModelConfig(preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1),
        data=DataConfig(species=(Species("ribosome", 5.5),)),
        inference=InferenceConfig(tile=16, overlap_vox=4),
        picking=PickingConfig(),
        voxel_size_angstrom=10.0,
        step=12,
        score=0.5,
    )
    save_model(folder / "model.rpk", TrainedModel(*build_network(card).init(jax.random.key(0)), card))
    return Subject(contents(folder), "model.rpk", load_model_file)


def maps_subject(folder: Path) -> Subject:
    """Maps of a template search that was stopped."""
    tiling = Tiling.of(SHAPE_ZYX, 3, 1)
    store = MapStore(SHAPE_ZYX, ("scores", "angles"), folder, {"core": list(tiling.core_zyx)})
    core = {"scores": np.ones(tiling.core_zyx, np.float32), "angles": np.ones(tiling.core_zyx, np.int32)}
    store.put(tiling, tiling.starts[0], core)

    def read(path: Path) -> None:
        kept_core(path, SHAPE_ZYX)
        again = MapStore(SHAPE_ZYX, ("scores", "angles"), path, {"core": list(tiling.core_zyx)})
        assert {name: stored.shape for name, stored in again.maps.items()} == {
            "scores": SHAPE_ZYX,
            "angles": SHAPE_ZYX,
        }
        list(again.waiting(tiling))

    return Subject(contents(folder), ".", read)


def iteration_subject(folder: Path) -> Subject:
    """An iteration of an averaging."""
    edge, n = 8, 3
    rng = np.random.default_rng(4)
    shells = rng.random(edge // 2)
    particles = ParticleSet(
        source=np.zeros(n, int),
        listed_vox=rng.random((n, 3)),
        positions_vox=rng.random((n, 3)),
        rotations=np.tile(np.eye(3), (n, 1, 1)),
        oriented=np.ones(n, bool),
        half=np.array([1, 2, 1]),
        scores=rng.random(n),
        kept=np.ones(n, bool),
    )
    half = replace(Sums.empty(edge), weight=rng.random(len(Sums.empty(edge).weight)), count=2)
    fsc = ShellCorrelation(edge, 10.0, shells, shells, shells, shells, 2)
    averages.save(Iteration(0, particles, (half, half), np.stack([shells] * 2), fsc), folder)
    return Subject(contents(folder), averages.iteration_file(Path(), 0).name, averages.load)


def manifest_subject(folder: Path) -> Subject:
    """The record of a simulation."""
    settings = {"simulation": {"snr": 2.0}, "species": [{"name": "ribosome"}]}
    write_manifest(folder, open_manifest(folder, settings))
    return Subject(contents(folder), ".", lambda path: open_manifest(path, settings))


def decisions_subject(folder: Path) -> Subject:
    """A person's decisions on a list."""
    given = ReviewList("TS_1", some_particles("csv"), ("ribosome", "apo"), None, 10.0, SHAPE_ZYX)
    edits = [Edit("reject", 0), Edit("reclass", 1, label=1), Edit("move", 2, at=(1.0, 2.0, 3.0))]
    edits += [Edit("add", label=2, at=(3.0, 2.0, 1.5)), Edit("undecide", 3), Edit("accept", 3)]
    write_decisions(folder / "decisions.json", "run", [(Review(given, edits), {"apo": 0.5})])

    def read(path: Path) -> None:
        for entry in read_decisions(path).tomograms.values():
            folded(given, entry.edits)

    return Subject(contents(folder), "decisions.json", read)


_TEMPLATES = """
voxel_size_angstrom: 14
tilt_step_deg: 3
angle_step_deg: 30
templates:
  - {name: ribosome, density: map.mrc, diameter_angstrom: 80}
  - {name: proteasome, density: "phantom:proteasome", min_score: 0.35}
"""
KEPT: dict[str, Callable[[Path], Subject]] = {
    "config": config_subject,
    "copick": copick_subject,
    "templates": templates_subject,
    "workdir": workdir_subject,
    "model": model_subject,
    "maps": maps_subject,
    "iteration": iteration_subject,
    "manifest": manifest_subject,
    "decisions": decisions_subject,
}
"""A whole file, or folder of files, of each kind, by the kind's name; each is called with an empty folder."""
