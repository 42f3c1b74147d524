"""Layers of the segmentation network that are not trained, by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import jax
import optax

from robpicker_jax.system.errors import InputError


def with_frozen(optimizer: optax.GradientTransformation, patterns: tuple[str, ...]) -> optax.GradientTransformation:
    """The optimiser, which leaves the parameters alone whose names fit one of the patterns."""
    if not patterns:
        return optimizer

    def frozen(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: _is_frozen(parameter_name(path), patterns), params)

    return optax.chain(optimizer, optax.masked(optax.set_to_zero(), frozen))


def check_frozen(params: Any, patterns: tuple[str, ...]) -> None:
    """Refuse patterns of `train.frozen` that fit no parameter, and ones that leave nothing to train.

    Raises:
        InputError: with the names that there are.
    """
    names = [parameter_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    layers = ", ".join(dict.fromkeys(name.partition("/")[0] for name in names))
    for pattern in patterns:
        if not any(_is_frozen(name, (pattern,)) for name in names):
            raise InputError(f"no layer {pattern!r}", where="train.frozen", fix=f"the network's layers: {layers}")
    if names and all(_is_frozen(name, patterns) for name in names):
        raise InputError("nothing is left to train", where="train.frozen", fix=f"freeze fewer of {layers}")


def parameter_name(path: Any) -> str:
    """Name of a parameter within the network, `layer/…/array`."""
    return "/".join(str(getattr(part, "key", getattr(part, "idx", part))) for part in path).removeprefix("params/")


def _is_frozen(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*") for pattern in patterns)
