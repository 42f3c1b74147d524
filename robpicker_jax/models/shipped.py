"""Models that ship with the package, by name: `pick --model general`.

They are the files `weights/{name}.rpk` beside this module, written by `benchmarks.general_model`.
"""

from __future__ import annotations

import os
from pathlib import Path

from robpicker_jax.system.errors import InputError

FOLDER = Path(__file__).with_name("weights")
"""Where they lie."""

GENERAL = "general"
"""The model that was trained on a wide mix of simulated tomograms."""


def shipped_models() -> dict[str, Path]:
    """The files by the models' names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.rpk"))}


def find_model(source: str | os.PathLike[str]) -> Path:
    """The file or folder that a user means by a path or by the name of a model that ships with the package.

    What exists under that path goes first; a name has no folder and no suffix.

    Raises:
        InputError: a name, but of none of these; the message lists them.
    """
    path = Path(source)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    shipped = shipped_models()
    if path.name in shipped:
        return shipped[path.name]
    listed = (
        f"models that ship with this version: {', '.join(shipped)}" if shipped else "no model ships with this version"
    )
    raise InputError(
        "no such file, run or shipped model", where=path, fix=f"give a run's folder or a model's file ({listed})"
    )
