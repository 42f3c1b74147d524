"""The held-out part of the meta set: no step sees a voxel of it, and the loss on it is the outer loss's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.commands import main_job, simulate
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, Species, load_config
from robpicker_jax.patches import PatchTomogram
from robpicker_jax.system.errors import InputError
from robpicker_jax.training import objective
from robpicker_jax.training.data import TrainingData
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.held_out import (
    check_species,
    divide,
    fixed_batches,
    held_out_scores,
    part_of,
)
from robpicker_jax.training.losses import build_loss
from robpicker_jax.training.metrics_log import read_metrics
from robpicker_jax.training.objective import Batch
from tests.steps import loaded_data
from tests.tiny import write_tiny

SIZE = 16
FAR = 1e6  # a value that no density has


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny configuration on a stored data set with three meta tomograms."""
    folder = tmp_path_factory.mktemp("held-out")
    path = write_tiny(folder / "tiny.yaml")
    arguments = ["--config", str(path), "--out", str(folder / "data"), "--simulation.meta", "3"]
    assert call(simulate.main, [*arguments, "--simulation.shape_zyx=[24,32,72]"]) == 0
    return load_config(path, [f"data.dir={folder / 'data'}"])


def loaded(config: Config, train: dict[str, Any], **patches: Any) -> TrainingData:
    """The data set with other settings of `train` and `patches`."""
    settings = replace(config, train=replace(config.train, **train), patches=replace(config.patches, **patches))
    return loaded_data(settings)


def held_boxes(data: TrainingData) -> dict[str, tuple[slice, slice, slice]]:
    """The held-out box of each meta tomogram that has one."""
    pairs = zip(data.meta, data._parts.held, strict=True)
    return {tomogram.name: region for tomogram, region in pairs if region is not None}


def seen(data: TrainingData, steps: int) -> Iterator[Batch]:
    """Training and meta batches of the first steps, as the training loop gets them."""
    ahead = data.batches(parallel.data_mesh())(0)
    for _ in range(steps):
        train, meta = jax.device_get(next(ahead))
        yield from (train, meta)


@pytest.mark.parametrize("how", ["tomograms", "space"])
@pytest.mark.parametrize("augment", [("rotate_180",), ("rotate_any",)], ids=["half-turns", "interpolated"])
@pytest.mark.parametrize("labels", ["stored", "drawn"])
def test_no_batch_holds_a_held_out_voxel(config: Config, how: str, augment: Any, labels: str) -> None:
    changes = {"meta_held_out": how, "meta_share": 0.5, "fine_tune_steps": 5, "steps": 12, "batch_size": 4}
    more = {"augment": augment, "meta_background_share": 0.3, "background_share": 0.3, "labels": labels}
    data, host = loaded(config, changes, input="device", **more), loaded(config, changes, input="host", **more)
    assert data.stacks["meta"].density.shape[0] == (2 if how == "tomograms" else 3)
    boxes = held_boxes(data)
    for tomogram in data.meta:
        if tomogram.name in boxes:
            assert tomogram.density is not None
            tomogram.density[boxes[tomogram.name]] = FAR
    if how == "tomograms":  # with a share of meta patches among them, training patches are cut from a copy of both
        assert data.stacks["train"].density.shape[0] == len(data.train) + 2
    else:
        data.stacks["train"].density[(slice(len(data.train), None), *boxes[data.meta[0].name])] = FAR
    assert max(float(np.abs(batch.image).max()) for batch in data.held_out) == FAR
    for batch, from_files in zip(seen(data, 12), seen(host, 12), strict=True):
        assert np.abs(batch.image).max() < FAR / 1e3
        np.testing.assert_array_equal(batch.center_class, from_files.center_class)
        np.testing.assert_allclose(batch.image, from_files.image, atol=2e-4)
    source = data.source()
    reached = 0
    for step in range(100):
        for kind, tomograms in (("meta", data.meta), ("train", [*data.train, *data.meta])):
            for plan in source.plans(kind, step):  # type: ignore[arg-type]
                name = tomograms[plan.tomogram].name
                if name not in boxes:
                    continue
                assert how == "space"
                starts = np.array([part.start for part in boxes[name]])
                axis = int(starts.argmax())
                assert plan.corner_zyx[axis] + SIZE <= starts[axis] - SIZE // 2
                reached += 1
    assert (reached > 50) == (how == "space")


def test_held_out_particles_are_no_batch_s(config: Config) -> None:
    for how in ("tomograms", "space"):
        data = loaded(config, {"meta_held_out": how, "meta_share": 0.5})
        source = data.source()
        shown = {
            (name, plan.particle)
            for step in range(300)
            for kind, names in (("meta", range(3)), ("train", [-1, *range(3)]))
            for plan in source.plans(kind, step)  # type: ignore[arg-type]
            if (name := list(names)[plan.tomogram]) >= 0
        }
        kept = [part_of(data._patches("meta", t), r) for t, r in zip(data.meta, data._parts.kept, strict=True) if r]
        held = [part_of(data._patches("meta", t), r) for t, r in zip(data.meta, data._parts.held, strict=True) if r]
        # Every kept particle is drawn sooner or later, and a number beyond the kept ones never is.
        assert {pair for pair in shown if pair[1] >= 0} == {
            (index, particle) for index, tomogram in enumerate(kept) for particle in range(len(tomogram.particles))
        }
        total = sum(len(tomogram.particles) for tomogram in (*kept, *held))
        everything = sum(len(tomogram.particles) for tomogram in data.meta if tomogram.particles is not None)
        assert total == everything if how == "tomograms" else 0 < total <= everything


def test_without_a_held_out_part_everything_is_as_it_was(config: Config) -> None:
    data = loaded(config, {"meta_held_out": "none"})
    assert data.held_out == []
    assert [region is not None for region in data._parts.kept] == [True] * 3
    assert data.stacks["meta"].shape_zyx.tolist() == [[24, 32, 72]] * 3
    assert data._meta_parts(data._parts.kept)[0].particles is data.meta[0].particles


def test_validation_tomograms_give_the_held_out_patches_where_there_are_some(config: Config, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.yaml")
    assert call(simulate.main, ["--config", str(path), "--out", str(tmp_path / "data"), "--simulation.val", "2"]) == 0
    settings = load_config(path, [f"data.dir={tmp_path / 'data'}", "train.meta_batch_size=4"])
    assert settings.train.meta_held_out == "val"
    data = loaded_data(settings)
    assert data._parts.held == (None,)  # the meta set is left whole
    batches = data.held_out
    assert sum(len(batch.image) for batch in batches) == 16  # both tomograms' particles, three and five
    opened = {tomogram.name: tomogram for tomogram in data.open("val")}
    windows = [
        np.lib.stride_tricks.sliding_window_view(tomogram.density, (SIZE,) * 3).reshape(-1, *(SIZE,) * 3)
        for tomogram in opened.values()
        if tomogram.density is not None
    ]
    for batch in batches:
        for row, image in enumerate(batch.image[..., 0]):
            assert any((window == image).all() for window in windows for window in window)
            assert (batch.label[row] == batch.center_class[row]).any()


def test_validation_tomograms_that_cannot_tell_a_loss_are_left_out(config: Config, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.yaml")
    assert call(simulate.main, ["--config", str(path), "--out", str(tmp_path / "data"), "--simulation.val", "2"]) == 0
    overrides = [f"data.dir={tmp_path / 'data'}", "train.meta_batch_size=4"]
    lists = sorted((tmp_path / "data" / "val").glob("*.xml"))
    assert len(lists) == 2
    lists[0].unlink()
    assert sum(len(batch.image) for batch in loaded_data(load_config(path, overrides)).held_out) == 8
    lists[1].unlink()
    assert loaded_data(load_config(path, overrides)).held_out == []


@pytest.mark.parametrize(
    ("how", "count", "kept", "held"),
    [("auto", 1, 1, 1), ("auto", 2, 1, 1), ("tomograms", 5, 3, 2), ("space", 2, 2, 2), ("none", 2, 2, 0)],
)
def test_what_is_held_out(config: Config, how: Any, count: int, kept: int, held: int) -> None:
    train = replace(config.train, meta_held_out=how)
    parts = divide([(40, 100, 60)] * count, train, SIZE)
    assert sum(region is not None for region in parts.kept) == kept
    assert sum(region is not None for region in parts.held) == held
    if how == "space" or (how, count) == ("auto", 1):
        assert parts.held[0] == (slice(0, 40), slice(75, 100), slice(0, 60))
        assert parts.kept[0] == (slice(0, 40), slice(0, 75 - SIZE // 2), slice(0, 60))


def test_a_part_is_a_tomogram_of_its_own(config: Config) -> None:
    rng = np.random.default_rng(0)
    density = rng.normal(size=(20, 30, 50)).astype(np.float32)
    label_map = rng.integers(0, 3, density.shape).astype(np.uint8)
    positions = rng.uniform(0, [49, 29, 19], (60, 3))
    whole = PatchTomogram("t", density, Particles(positions, np.ones(60, int)), label_map, density > 0)
    region = (slice(2, 20), slice(0, 30), slice(31, 50))
    part = part_of(whole, region)
    box = (slice(1, 9), slice(4, 12), slice(5, 13))
    there = (slice(3, 11), slice(4, 12), slice(36, 44))
    np.testing.assert_array_equal(part.density_in(box), density[there])
    np.testing.assert_array_equal(part.labels_in(box), label_map[there])
    assert part.mask is not None
    np.testing.assert_array_equal(part.mask[box], (density > 0)[there])
    inside = (positions[:, 0] >= 30.5) & (positions[:, 2] >= 1.5)
    assert 0 < inside.sum() < 60
    np.testing.assert_allclose(part.particles.positions_vox, positions[inside] - [31, 0, 2])


@pytest.mark.parametrize(
    ("how", "shapes", "message"),
    [("tomograms", [(40, 40, 40)], "two meta tomograms"), ("space", [(20, 39, 30)], "too small")],
)
def test_sets_that_cannot_be_divided(config: Config, how: Any, shapes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        divide(shapes, replace(config.train, meta_held_out=how), SIZE)


def test_species_that_only_the_held_out_part_has_are_named(config: Config) -> None:
    species = (Species("ribosome", 5.0), Species("apoferritin", 3.0))
    parts = divide([(20, 20, 100)], replace(config.train, meta_held_out="space"), SIZE)
    near, far = [10.0, 10.0, 10.0], [90.0, 10.0, 10.0]
    check_species([Particles([near, near, far], [1, 2, 2])], parts, species)
    with pytest.raises(InputError, match="apoferritin"):
        check_species([Particles([near, far], [1, 2])], parts, species)
    with pytest.raises(InputError, match="no particle in the part"):
        check_species([Particles([near, near], [1, 2])], parts, species)


def test_the_patches_of_the_held_out_loss_take_the_classes_by_turns(config: Config) -> None:
    data = loaded(config, {"meta_held_out": "tomograms", "meta_batch_size": 4})
    batches = data.held_out
    assert [batch.image.shape for batch in batches] == [(4, SIZE, SIZE, SIZE, 1)] * 2  # of 3 + 5 particles
    assert sorted(np.concatenate([batch.center_class for batch in batches]).tolist()) == [1] * 3 + [2] * 5
    assert batches[0].center_class.tolist() == [1, 2, 1, 2]
    for batch in batches:
        assert all((batch.label[row] == batch.center_class[row]).any() for row in range(4))
    density = data.meta[2].density
    assert density is not None
    windows = np.lib.stride_tricks.sliding_window_view(density, (SIZE,) * 3)
    assert any((window == batches[0].image[0, ..., 0]).all() for window in windows.reshape(-1, *(SIZE,) * 3))
    again = loaded(config, {"meta_held_out": "tomograms", "meta_batch_size": 4}, input="host").held_out
    jax.tree.map(np.testing.assert_array_equal, batches, again)
    assert fixed_batches([], SIZE, 4) == []


def test_the_held_out_loss_is_the_outer_loss_on_these_patches(config: Config) -> None:
    settings = replace(config, train=replace(config.train, meta_held_out="tomograms"))
    experiment = build_experiment(settings)
    data = loaded_data(settings)
    names = ["ribosome", "apoferritin"]
    scores = held_out_scores(experiment, experiment.state, data.held_out, names)
    outer = objective.outer_loss(experiment.networks, build_loss(settings.train))
    state = experiment.state
    batches = [jax.tree.map(jnp.asarray, batch) for batch in data.held_out]
    expected = [float(outer(state.params, state.network_state, batch)[0]) for batch in batches]
    assert scores["held_out_loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert set(scores) == {"held_out_loss", *(f"held_out_loss/{name}" for name in names)}
    assert all(0 < value < 1 for value in scores.values())
    without = [batch._replace(label=np.where(batch.label == 2, 0, batch.label)) for batch in data.held_out]
    assert np.isnan(held_out_scores(experiment, state, without, names)["held_out_loss/apoferritin"])


def test_a_run_records_the_held_out_loss(config: Config, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"meta_held_out": "auto", "variant": "supervised", "steps": 2, "validate_every": 1}
    main_job.run(replace(config, train=replace(config.train, **changes)), tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "validation"]
    assert len(rows) == 2
    for row in rows:
        for key in ("held_out_loss", "held_out_loss/ribosome", "held_out_loss/apoferritin"):
            assert 0 < row[key] < 1
