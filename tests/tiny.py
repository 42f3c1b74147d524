"""A configuration and a data set so small that a whole run takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

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
