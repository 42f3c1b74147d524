"""Fine-tuning: a run that begins with a trained model, and layers that stay as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml

from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, TrainConfig, load_config
from robpicker_jax.models.trained_model import TrainedModel
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.export import load_trained_model, trained_model
from robpicker_jax.training.freezing import check_frozen, parameter_name, with_frozen
from robpicker_jax.training.starting import _by_species, fine_tuning, shorter, started, with_network_of_start


def arrays(params: object) -> dict[str, np.ndarray]:
    return {parameter_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


@pytest.fixture(scope="module")
def model(tiny_config: Path) -> TrainedModel:
    """The random network of a seed, as a model of a run would be."""
    experiment = build_experiment(load_config(tiny_config, ["train.seed=5", "train.average_decay=0.9"]))
    return trained_model(experiment, experiment.state)


def test_frozen_layers_stay_as_they_are_under_any_optimiser() -> None:
    params = {"encoder_0": {"kernel": jnp.ones(3)}, "encoder_1": {"kernel": jnp.ones(2)}, "classes": jnp.ones(4)}
    gradient = jax.tree.map(jnp.ones_like, params)
    optimizer = with_frozen(optax.adamw(0.1, weight_decay=0.3), ("encoder_*",))
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert {name: bool(np.any(value)) for name, value in arrays(updates).items()} == {
        "encoder_0/kernel": False,
        "encoder_1/kernel": False,
        "classes": True,
    }
    check_frozen(params, ("encoder_*",))
    with pytest.raises(InputError, match=r"no layer 'decoder'.*classes, encoder_0, encoder_1"):
        check_frozen(params, ("decoder",))
    with pytest.raises(InputError, match="nothing is left to train"):
        check_frozen(params, ("*",))


def test_the_short_schedule() -> None:
    short = shorter(TrainConfig(steps=300, meta_warmup_steps=60, validate_every=150, checkpoint_every=50))
    assert short["train.steps"] == 100
    assert short["train.meta_warmup_steps"] == 20
    assert (short["train.validate_every"], short["train.checkpoint_every"]) == (100, 50)
    assert short["train.inner.learning_rate"] == pytest.approx(0.3 * 1e-4)
    assert shorter(TrainConfig(steps=1))["train.steps"] == 1
    shares = shorter(TrainConfig(steps=300, meta_warmup_steps=0.33, fine_tune_steps=0.1))
    assert (shares["train.meta_warmup_steps"], shares["train.fine_tune_steps"]) == (0.33, 0.1)


def test_a_fine_tuning_is_short_but_for_what_is_said(
    tiny_config: Path, tmp_path: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such file, run or shipped model"):
        fine_tuning(tiny_config, "nothing")
    monkeypatch.setattr("robpicker_jax.training.starting.load_trained_model", lambda path: model)
    config = load_config(tiny_config, ["train.steps=90", "train.meta_warmup_steps=30"])
    found = fine_tuning(config, tmp_path)
    assert (found.train.steps, found.train.meta_warmup_steps) == (30, 10)
    assert found.train.inner.learning_rate == pytest.approx(0.3 * config.train.inner.learning_rate)
    assert found.train.init_from == str(tmp_path.resolve())
    assert found.data == config.data
    of_file = load_config(tiny_config).train.steps
    assert fine_tuning(tiny_config, tmp_path).train.steps == max(1, of_file // 3)
    said = fine_tuning(tiny_config, str(tmp_path), ["train.steps=80", "train.meta_warmup_steps=30"])
    assert (said.train.steps, said.train.meta_warmup_steps) == (80, 30)
    of_another = fine_tuning(tiny_config, tmp_path, ["data.species.0.name=another"])  # which the model has to learn
    assert of_another.train.inner.learning_rate == pytest.approx(config.train.inner.learning_rate)


def configured(tiny_config: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Config:
    monkeypatch.setattr("robpicker_jax.training.starting.load_trained_model", lambda path: model)
    config = load_config(tiny_config, ["train.init_from=model.rpk", "model.widths=[8,8,8]", *overrides])
    return with_network_of_start(config, tiny_config.parent / "new")


def test_parameters_and_statistics_are_the_models(
    tiny_config: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tiny_config, model, monkeypatch, "train.average_decay=0.5")
    assert config.model.widths == model.card.model.widths
    experiment = build_experiment(config)
    fresh = jax.device_get(experiment.state)
    state, lines = started(experiment.state, config, experiment.mesh)
    for ours, theirs in ((state.params, model.params), (state.network_state.batch_stats, model.batch_stats)):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(ours), jax.device_get(theirs))
    jax.tree.map(np.testing.assert_array_equal, state.network_state.average, state.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.opt_state), fresh.opt_state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.meta), fresh.meta)
    assert len(lines) == 1
    for difference, said in (("voxels", ["voxels"]), (None, [])):
        _, lines = started(experiment.state, config, experiment.mesh, lambda card, text=difference: text)
        assert [line.rpartition(": ")[2] for line in lines[1:]] == said


def test_species_that_the_model_knows_keep_what_tells_them(
    tiny_config: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another order, beside a new one; with an output for the background (unet) and without (deepict)."""
    species = [
        {"name": "apoferritin", "phantom": "apoferritin", "radius_vox": 4},
        {"name": "another", "phantom": "p97", "radius_vox": 4},
        {"name": "ribosome", "phantom": "ribosome", "radius_vox": 6},
    ]
    config = configured(tiny_config, model, monkeypatch, f"data.species={json.dumps(species)}")
    experiment = build_experiment(config)
    fresh, theirs = arrays(experiment.state.params), arrays(model.params)
    state, lines = started(experiment.state, config, experiment.mesh)
    ours = arrays(state.params)
    assert "so that what tells another begins anew" in lines[1]
    for name in ("classes/kernel", "classes/bias"):
        np.testing.assert_array_equal(ours[name][..., [0, 1, 3]], theirs[name][..., [0, 2, 1]])
        np.testing.assert_array_equal(ours[name][..., 2], fresh[name][..., 2])
        del ours[name], theirs[name]
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    given, own = np.array([[1.0, 2.0]]), np.array([[7.0, 8.0, 9.0]])
    joined = _by_species(own, given, 1, ["b", "new", "a"], ["a", "b"])
    np.testing.assert_array_equal(joined, [[2.0, 8.0, 1.0]])


def test_other_species_begin_with_a_fresh_part_of_the_last_layer(
    tiny_config: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for species in ('[{"name": "a", "phantom": "p97", "radius_vox": 4}]', None):
        overrides = ["data.species.0.name=another"] if species is None else [f"data.species={species}"]
        config = configured(tiny_config, model, monkeypatch, *overrides)
        experiment = build_experiment(config)
        fresh = arrays(experiment.state.params)
        state, lines = started(experiment.state, config, experiment.mesh)
        ours, theirs = arrays(state.params), arrays(model.params)
        others = [name for name in ours if not name.startswith("classes/")]
        assert len(others) == len(ours) - 2 >= 4
        assert all(np.array_equal(ours[name], theirs[name]) for name in others)
        np.testing.assert_array_equal(ours["classes/kernel"][..., 0], theirs["classes/kernel"][..., 0])
        np.testing.assert_array_equal(ours["classes/kernel"][..., 1], fresh["classes/kernel"][..., 1])
        assert "its species are others (ribosome, apoferritin)" in lines[1]
    other = replace(load_config(tiny_config, ["train.init_from=x", "model.widths=[8,8]"]))
    experiment = build_experiment(other)
    with pytest.raises(InputError, match="a model of another network"):
        started(experiment.state, other, experiment.mesh)


@pytest.mark.slow
def test_a_run_is_fine_tuned_with_a_layer_frozen(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    source = load_trained_model(tiny_run)
    layers = list(dict.fromkeys(name.partition("/")[0] for name in arrays(source.params)))
    arguments = ["--config", str(tiny_config), "--init-from", str(tiny_run), "--workdir", str(tmp_path / "RUN")]
    arguments += [f"--train.frozen=[{layers[0]}]", "--train.steps=2", "--model.widths=[8,8,8]"]
    assert call(train.main, arguments) == 0
    tuned = load_trained_model(tmp_path / "RUN")
    before, after = arrays(source.params), arrays(tuned.params)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {name for name in before if name.startswith(f"{layers[0]}/")} <= same
    assert len(same) < len(before)
    resolved = yaml.safe_load((tmp_path / "RUN/config.yaml").read_text())
    assert resolved["train"]["init_from"] == str(tiny_run)
    assert resolved["model"]["widths"] == list(source.card.model.widths or ())
    assert (
        call(train.main, [*arguments[:2], "--init-from", str(tmp_path / "none"), "--workdir", str(tmp_path / "B")]) == 2
    )
