"""A trained model as one file, `model.rpk`.

The file is a safetensors container (https://github.com/huggingface/safetensors): a JSON header, then the arrays as raw
bytes; reading it executes nothing. Arrays are named by their path, `params/…` and `batch_stats/…`. The header's
metadata holds one entry, `robpicker_jax`, which is JSON again:

    format   1
    card     the `ModelCard`
    sha256   of the card and of every array with its name, type and shape, so that damage anywhere is found

The same model always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from robpicker_jax.config import as_plain_values, validated
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network, check_tiles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

MODEL_FILE = "model.rpk"
"""Name of the model's file in a run's folder."""

_ENTRY = "robpicker_jax"
_FORMAT = 1
_DAMAGED = "copy the file again, or take the model from its run's folder"


def save_model(path: str | os.PathLike[str], model: TrainedModel) -> None:
    """Write a trained model; the file appears whole or not at all.

    Args:
        path: the file, by custom with the suffix .rpk.
        model: the model. Arrays on devices are fetched.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = _flat({"params": model.params, "batch_stats": model.batch_stats})
    tensors = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    entry = json.dumps(_entry(as_plain_values(model.card), tensors))
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={_ENTRY: entry})
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", where=path) from None


def load_model_file(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a trained model; its arrays are exactly those that were written.

    Raises:
        InputError: no such file, a file that is no model, is truncated or otherwise damaged, was written by a newer
            version of this package, or whose arrays are not those of its network.
    """
    path = Path(path)
    metadata, tensors = _container(path)
    card = _read_card(_checked_card(metadata, tensors, path), path)
    network = build_network(card)
    params, batch_stats = jax.eval_shape(network.init, jax.random.key(0))
    expected = {"params": params, "batch_stats": batch_stats}
    _check_arrays(tensors, _flat_shapes(expected), path)
    paths, tree = jax.tree_util.tree_flatten_with_path(expected)
    restored = jax.tree.unflatten(tree, [tensors[_name(where)] for where, _ in paths])
    return TrainedModel(restored["params"], restored["batch_stats"], card)


def fingerprint(model: TrainedModel) -> str:
    """SHA-256 of a model's card and arrays, in hexadecimal: the one that its file holds, if it was not changed since."""
    arrays = _flat({"params": model.params, "batch_stats": model.batch_stats})
    return str(_entry(as_plain_values(model.card), arrays)["sha256"])


def _container(path: Path) -> tuple[Mapping[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a safetensors file."""
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "not a file", where=path, fix="give a trained model")
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from None
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise InputError(
            f"is no trained model, or a damaged one ({str(error).splitlines()[0] if str(error) else error!r})",
            where=path,
            fix=_DAMAGED,
        ) from None


def _checked_card(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray], path: Path) -> dict[str, Any]:
    """The card's fields, once format and checksum have been found right."""
    if _ENTRY not in metadata:
        raise InputError(
            "is no trained model of this package", where=path, fix=f"give a {MODEL_FILE} that training wrote"
        )
    try:
        entry = json.loads(metadata[_ENTRY])
    except (ValueError, RecursionError) as error:
        raise InputError(f"its card is not valid JSON ({error})", where=path, fix=_DAMAGED) from None
    card = entry.get("card") if isinstance(entry, dict) else None
    if not isinstance(card, dict):
        raise InputError("its card holds no fields", where=path, fix=_DAMAGED)
    if entry.get("format") != _FORMAT:
        raise InputError(
            f"is written in format {entry.get('format')!r}, this version reads {_FORMAT}",
            where=path,
            fix=f"install version {card.get('package_version', 'unknown')} of robpicker_jax",
        )
    if entry != _entry(card, tensors):
        raise InputError("is damaged: its contents do not agree with its checksum", where=path, fix=_DAMAGED)
    return card


def _read_card(data: dict[str, Any], path: Path) -> ModelCard:
    try:
        card = validated(ModelCard, data, path)
        check_tiles(card)
    except InputError as error:
        raise InputError(
            f"its card cannot be used: {error.what}",
            where=path,
            fix=error.fix
            or f"it was written by version {data.get('package_version', 'unknown')} of robpicker_jax: install that one",
        ) from None
    return card


def _check_arrays(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[tuple[int, ...], Any]], path: Path
) -> None:
    """Refuse arrays that are not those of the network that the card describes."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    fix = "the card does not belong to these parameters: take the model from its run's folder"
    if missing or unexpected:
        what = (
            f"lacks the array {missing[0]}"
            if missing
            else f"holds an array {unexpected[0]} that its network does not have"
        )
        raise InputError(what, where=path, fix=fix)
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != dtype:
            raise InputError(
                f"array {name} is {found.dtype} {found.shape}, the network's is {dtype} {shape}", where=path, fix=fix
            )


def _entry(card: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the header's metadata says of a model."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return {"format": _FORMAT, "card": dict(card), "sha256": digest.hexdigest()}


def _flat(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a nested dictionary as host arrays, by their path."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _flat_shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): (tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)
