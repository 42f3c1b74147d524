"""A copick project of three small runs, made by the copick library itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPE = (8, 10, 12)
POSITIONS = {"apo-ferritin": [[10.0, 20.0, 30.0]], "ribosome": [[40.0, 50.0, 60.0], [70.0, 20.0, 10.0]]}


def make_project(tmp_path: Path) -> Path:
    """Three runs with a tomogram each; ann picked both objects in all of them, ben one object in the first."""
    copick = pytest.importorskip("copick", reason="the extra copick is not installed")
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    for name in ("static", "overlay"):
        (tmp_path / name).mkdir()
    config = {
        "name": "p",
        "description": "",
        "version": "1.0",
        "pickable_objects": [
            {"name": "apo-ferritin", "is_particle": True, "label": 1, "radius": 60},
            {"name": "ribosome", "is_particle": True, "label": 2, "radius": 150},
            {"name": "membrane", "is_particle": False, "label": 3},
        ],
        "config_type": "filesystem",
        "overlay_root": f"local://{tmp_path / 'overlay'}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    path = tmp_path / "copick_config.json"
    path.write_text(json.dumps(config))
    root = copick.from_file(str(path))
    rng = np.random.default_rng(0)
    for name in ("TS_1", "TS_2", "TS_3"):
        run = root.new_run(name)
        spacing = run.new_voxel_spacing(10.0)
        spacing.new_tomogram("wbp").from_numpy(rng.normal(size=SHAPE).astype(np.float32))
        for object_name, positions in POSITIONS.items():
            add(run, object_name, "ann", positions)
    add(root.get_run("TS_1"), "ribosome", "ben", [[1.0, 2.0, 3.0]])
    return path


def add(run: Any, name: str, user: str, positions: list[list[float]], session: str = "1") -> None:
    """Give a run picks of an object, x y z in Å."""
    from copick.models import CopickPoint

    picks = run.new_picks(name, session, user)
    picks.points = [CopickPoint(location=dict(zip("xyz", position, strict=True))) for position in positions]
    picks.store()
