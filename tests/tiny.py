"""A configuration and a data set so small that a whole run takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import yaml

from robpicker_jax.config import DataConfig, InferenceConfig, ModelConfig, PickingConfig, Species
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network

TINY: dict[str, Any] = {
    "data": {
        "species": [
            {"name": "ribosome", "phantom": "ribosome", "radius_vox": 5, "copies": 3},
            {"name": "apoferritin", "phantom": "apoferritin", "radius_vox": 3, "copies": 5},
        ]
    },
    "simulation": {
        "shape_zyx": [32, 40, 48],
        "voxel_size_angstrom": 22.0,
        "train": 1,
        "meta": 1,
        "val": 0,
        "test": 1,
        "snr": 2.0,
        "tilt_step_deg": 10.0,
    },
    "label_noise": {"missing": 0.2, "jitter_vox": 0.5},
    "patches": {"size": 16, "shift_vox": 4},
    "model": {
        "preset": "custom",
        "widths": [4, 6],
        "convs_per_block": 1,
        "bottleneck_convs": 1,
        "decoder_convs": 1,
        "correction": "tied",  # one network less to compile than the default
        "reweighting_inputs": "loss",
        "reweighting_hidden": 10,
    },
    "train": {
        "steps": 4,
        "batch_size": 2,
        "inner": {"name": "adam", "learning_rate": 3e-3},
        "validate_every": 2,
        "checkpoint_every": 2,
        "log_every": 1,
    },
    "inference": {"tile": 32, "overlap_vox": 8, "batch_size": 2},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dictionary with some of its values changed; lists are replaced as a whole."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, Mapping) and key in result else value
    return result


def write_tiny(path: Path) -> Path:
    """Write the tiny configuration to `path`."""
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


def untrained(names: Sequence[str], voxel_size_angstrom: float = 10.0, **picking: Any) -> TrainedModel:
    """A small model with random parameters.

    Args:
        names: its species; their radii are 3 voxels.
        voxel_size_angstrom: of the tomograms that it is for.
        picking: settings of picking beside `min_cluster_vox=1`.
    """
    card = ModelCard(
        model=ModelConfig(preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1),
        data=DataConfig(species=tuple(Species(name, 3.0) for name in names)),
        inference=InferenceConfig(tile=16, overlap_vox=4),
        picking=PickingConfig(**{"min_cluster_vox": 1, **picking}),
        voxel_size_angstrom=voxel_size_angstrom,
        step=1,
        score=None,
    )
    params, stats = build_network(card).init(jax.random.key(1))
    params["classes"]["kernel"] = jax.random.normal(jax.random.key(2), params["classes"]["kernel"].shape)
    return TrainedModel(params, stats, card)
