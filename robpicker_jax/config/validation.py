"""Checks of a configuration that involve several fields; each failure names its key."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from robpicker_jax.config.data_sections import ALL_CLASSES, MAX_SPECIES
from robpicker_jax.config.schema import Config
from robpicker_jax.config.training_sections import OptimizerConfig
from robpicker_jax.system.errors import InputError


def check(config: Config, source: str | Path = "") -> None:
    """Refuse a configuration that cannot run.

    Raises:
        InputError: naming the first key at fault and the remedy.
    """

    def fail(key: str, what: str, fix: str = "") -> None:
        raise InputError(f"{key}: {what}", where=source, fix=fix)

    species = config.data.species
    if not species:
        fail("data.species", "no species", "list at least one {name, radius_angstrom}")
    if len(species) > MAX_SPECIES:
        fail("data.species", f"{len(species)} species, but label maps hold {MAX_SPECIES} at most")
    names = [entry.name for entry in species]
    if ALL_CLASSES in names:
        fail("data.species", f"no species can be named {ALL_CLASSES!r}", "data.lists has lists of all classes under it")
    for name, count in Counter(names).items():
        if count > 1:
            fail("data.species", f"the name {name!r} is given {count} times", "make the names unique")
    for index, entry in enumerate(species):
        key = f"data.species.{index}"
        if entry.phantom and entry.density:
            fail(key, "both phantom and density are given", "keep one")
        if config.data.dir is None and not (entry.phantom or entry.density):
            fail(key, "simulation needs a phantom or a density", "add one, or set data.dir")
        if config.data.meta_labels == "shape" and not (entry.phantom or entry.density or entry.mask):
            fail(key, "shape labels need a mask, density or phantom", "add one, or set data.meta_labels: sphere")
        if config.data.train_labels == "shape" and not (entry.phantom or entry.density or entry.mask):
            fail(key, "shape labels need a mask, density or phantom", "add one, or set data.train_labels: sphere")
    if isinstance(config.data.lists, dict):
        for name in config.data.lists:
            if name not in (*names, ALL_CLASSES):
                fail(f"data.lists.{name}", "no such species", f"data.species has {', '.join(names)}")
    for name in config.picking.min_scores:
        if name not in names:
            fail("picking.min_scores", f"no species {name!r}", f"the species are {', '.join(names)}")
    try:
        re.compile(config.data.name_pattern or "")
    except re.error as error:
        fail("data.name_pattern", f"not a regular expression ({error})")
    simulation = config.simulation
    if config.data.dir is None:
        if min(simulation.train, simulation.meta, simulation.test) < 1:
            fail("simulation", "train, meta and test must each be at least 1")
        if simulation.tilt_step_deg > 2 * simulation.tilt_max_deg:
            fail("simulation.tilt_step_deg", "is larger than the whole tilt range")
        if min(simulation.shape_zyx) < config.patches.size:
            fail(
                "patches.size",
                f"{config.patches.size} does not fit the simulated shape {list(simulation.shape_zyx)}",
                "make the patch smaller or simulation.shape_zyx larger",
            )
    if config.patches.shift_vox >= config.patches.size // 2:
        fail(
            "patches.shift_vox",
            f"{config.patches.shift_vox} may move the particle out of a patch of {config.patches.size}",
            f"use less than {config.patches.size // 2}",
        )
    tile = config.inference.tile_edge(config.patches.size)
    if config.inference.overlap_vox >= tile:
        fail("inference.overlap_vox", f"must be smaller than the tile ({tile})")
    if config.train.n_fine_tune_steps >= config.train.steps:
        fail("train.fine_tune_steps", f"must be less than train.steps ({config.train.steps})")
    if config.train.meta_warmup_until == "plateau" and not config.train.n_meta_warmup_steps:
        fail(
            "train.meta_warmup_until",
            "a warm-up of no steps cannot end at a plateau",
            "set train.meta_warmup_steps to the most steps that it may take, such as 0.5 for half of all",
        )
    if config.train.is_bilevel:
        _check_optimizer("train.inner", config.train.inner, source)


def _check_optimizer(key: str, optimizer: OptimizerConfig, source: str | Path) -> None:
    if optimizer.name in ("adam", "adamw", "rmsprop") and optimizer.eps_root == 0:
        raise InputError(
            f"{key}.eps_root: {optimizer.name} with eps_root 0 has no finite derivative where a gradient is zero, "
            "so no hypergradient",
            where=source,
            fix="use a small positive value such as 1e-12",
        )
