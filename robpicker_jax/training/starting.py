"""Training that begins with a trained model in place of random parameters: fine-tuning.

The network is that of the model; its parameters and batch-norm statistics are copied, the optimisers and the meta
networks begin anew. Where the species are others, the layers whose shape depends on their number are put together from the
background's and the known species' own parameters, by name; those of new species begin anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from robpicker_jax import parallel
from robpicker_jax.bilevel import TrainState
from robpicker_jax.config import (
    Config,
    ModelConfig,
    TrainConfig,
    apply_overrides,
    as_plain_values,
    config_of,
    load_config,
)
from robpicker_jax.models import build_backbone
from robpicker_jax.models.shipped import find_model
from robpicker_jax.models.trained_model import ModelCard, TrainedModel
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import from_here
from robpicker_jax.training import run_folder
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.training.freezing import parameter_name

_NETWORK = (
    "backbone",
    "backbone_options",
    "size",
    "preset",
    "widths",
    "convs_per_block",
    "bottleneck_convs",
    "decoder_convs",
    "batch_norm",
)
"""What of the section `model` is the segmentation network's shape."""

_SHARE = 3
_RATE = 0.3


def shorter(train: TrainConfig, *, knows_species: bool = True) -> dict[str, Any]:
    """The schedule of a fine-tuning, by key: a third of the steps and of the warm-up, 0.3 of the learning rate.

    Args:
        train: the training that it shortens.
        knows_species: whether the model knows all species; where it does not, the learning rate stays, so that new
            ones are learned in so few steps.
    """
    steps = max(1, train.steps // _SHARE)
    rate = train.inner.learning_rate * (_RATE if knows_species else 1.0)
    return {
        "train.steps": steps,
        "train.meta_warmup_steps": _shorter(train.meta_warmup_steps, steps),
        "train.inner.learning_rate": rate,
        "train.validate_every": min(train.validate_every, steps),
        "train.checkpoint_every": min(train.checkpoint_every, steps),
        "train.fine_tune_steps": _shorter(train.fine_tune_steps, steps),
    }


def _shorter(part: float, steps: int) -> float:
    """A third of a part of the steps, less than all of the short ones; a part that is a share of them follows by itself."""
    return part if 0 < part < 1 else min(int(part) // _SHARE, steps - 1)


def fine_tuning(
    config: Config | str | os.PathLike[str] | None, init_from: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> Config:
    """A configuration that begins with a trained model, on the short schedule but for what `overrides` set of it.

    Args:
        config: a YAML file, a configuration, or None: the embedded quickstart.
        init_from: a run's folder, a model's file, or the name of a model that ships with the package.
        overrides: "dotted.key=value" strings.

    Raises:
        InputError: bad configuration, or no model that can be read.
    """
    card = load_trained_model(find_model(init_from)).card
    start = f"train.init_from={json.dumps(os.fspath(init_from))}"
    own = config if isinstance(config, Config) else load_config(config, overrides)
    given = {override.partition("=")[0] for override in overrides}
    knows = {species.name for species in own.data.species} <= set(card.class_names)
    schedule = shorter(own.train, knows_species=knows)
    short = [f"{key}={json.dumps(value)}" for key, value in schedule.items() if key not in given]
    if isinstance(config, Config):
        return config_of(apply_overrides(as_plain_values(config), [*overrides, *short, start]), Path("configuration"))
    return load_config(config, [*overrides, *short, start])


def with_network_of_start(config: Config, workdir: Path) -> Config:
    """The configuration with the network of `train.init_from`; of a run that was begun, with that which it was begun with.

    Raises:
        InputError: no such model.
    """
    if config.train.init_from is None:
        return config
    begun = run_folder.trained_to(workdir) is not None
    model = run_folder.read_config(workdir).model if begun else load_trained_model(config.train.init_from).card.model
    return replace(config, model=replace(config.model, **{name: getattr(model, name) for name in _NETWORK}))


def started(
    state: TrainState,
    config: Config,
    mesh: jax.sharding.Mesh,
    unlike: Callable[[ModelCard], str | None] | None = None,
) -> tuple[TrainState, list[str]]:
    """A fresh state with the parameters of `train.init_from`, and what is worth saying of it.

    Args:
        state: the fresh state, on the devices.
        config: the configuration, with the network of the model.
        mesh: the devices.
        unlike: the model's card → what of the data is unlike those that the model was trained on, None: nothing.

    Raises:
        InputError: a model of another network.
    """
    assert config.train.init_from is not None
    model = load_trained_model(config.train.init_from)
    names = [species.name for species in config.data.species]
    lines = [f"begun with {from_here(config.train.init_from)} ({_origin(model)})"]
    if new := [name for name in names if name not in model.card.class_names]:
        known = ", ".join(model.card.class_names)
        lines.append(f"its species are others ({known}), so that what tells {', '.join(new)} begins anew")
    if unlike is not None and (difference := unlike(model.card)) is not None:
        lines.append(f"warning: the model was trained on other data than these: {difference}")
    axes = _class_axes(config.model, len(names) + 1)
    params = _copied(state.params, model.params, config.train.init_from, axes, (names, model.card.class_names))
    stats = _copied(state.network_state.batch_stats, model.batch_stats, config.train.init_from)
    average = state.network_state.average
    network_state = state.network_state._replace(
        batch_stats=parallel.replicate(stats, mesh),
        # A copy: a step is given the state's arrays for its own use, each once.
        average=None if average is None else parallel.replicate(jax.tree.map(jax.numpy.copy, params), mesh),
    )
    return state._replace(params=parallel.replicate(params, mesh), network_state=network_state), lines


def _class_axes(model: ModelConfig, n_classes: int) -> dict[str, int]:
    """The axis of the classes in each parameter whose shape depends on their number, by the parameter's name."""
    one, other = (_shapes(build_backbone(model, n)) for n in (n_classes, n_classes + 1))
    return {
        name: next(axis for axis, size in enumerate(shape) if size != other[name][axis])
        for name, shape in one.items()
        if shape != other[name]
    }


def _shapes(backbone: Any) -> dict[str, tuple[int, ...]]:
    params, _ = jax.eval_shape(backbone.init, jax.random.key(0))
    return {parameter_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def _copied(
    own: Any,
    given: Any,
    where: str,
    axes: Mapping[str, int] = MappingProxyType({}),
    species: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Any:
    """The model's arrays in the tree of a fresh state.

    Args:
        own: arrays of the fresh state.
        given: those of the model.
        where: the model's file, for messages.
        axes: the axis of the classes, of arrays that have one.
        species: own names and those of the model.
    """
    source = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(given)[0]}

    def copy(path: Any, leaf: Any) -> Any:
        name = parameter_name(path)
        found = source.get(name)
        if found is not None and name in axes:
            found = _by_species(leaf, found, axes[name], *species)
        if found is None or found.shape != leaf.shape:
            raise InputError(f"a model of another network (array {name})", where=where, fix="leave --init-from out")
        return jax.numpy.asarray(found, leaf.dtype)

    return jax.tree_util.tree_map_with_path(copy, own)


def _by_species(fresh: Any, given: Any, axis: int, own: Sequence[str], theirs: Sequence[str]) -> Any:
    """A model's array with what belongs to each class in one's own order; of species that the model lacks as it is in `fresh`.

    Args:
        fresh: one's own array.
        given: the model's, the same but for the number of classes; any other array is given back as it is.
        axis: of the classes: the background, where the network has an output for it, and the species.
        own, theirs: names of the species.
    """
    background = fresh.shape[axis] - len(own)
    if np.delete(given.shape, axis).tolist() != np.delete(fresh.shape, axis).tolist():
        return given
    ours, known = np.moveaxis(np.array(fresh), axis, 0), np.moveaxis(np.asarray(given), axis, 0)
    ours[:background] = known[:background]
    for label, name in enumerate(own):
        if name in theirs:
            ours[background + label] = known[background + theirs.index(name)]
    return np.moveaxis(ours, 0, axis)


def _origin(model: TrainedModel) -> str:
    score = model.card.score
    return f"step {model.card.step}" + ("" if score is None else f", {model.card.score_name} {score:.3f}")
