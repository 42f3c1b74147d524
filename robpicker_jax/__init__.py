"""RobPicker in pure JAX: particle picking in cryo-electron tomograms from noisy labels, by exact bi-level training.

In a notebook:

    import robpicker_jax as rp
    model = rp.load_model("runs/quickstart")                 # a training run's folder, or its file model.rpk
    table = model.pick("tomogram.mrc").to_dataframe()        # or an array (z, y, x), with voxel_size=… in Å

| name | what it does |
| --- | --- |
| `load_model` | a trained `Model`: `.pick`, `.segment`, `.with_options`, `.save` |
| `train`, `simulate` | the main job, and a simulated data set, from a configuration |
| `read_particles`, `write_particles` | particle lists of every supported format, as `Particles` |
| `open_volume`, `read_volume` | tomograms: MRC, TIFF, OME-Zarr |
| `evaluate` | picks against true particles |
| `load_config` | a configuration from YAML and overrides |
| `InputError` | raised wherever the input is at fault: what, where, and how to fix it |

Each name is imported when it is first used: `import robpicker_jax` alone loads neither JAX nor NumPy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from robpicker_jax.system.version import __version__

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.annotations import read_annotations as read_particles
    from robpicker_jax.annotations import write_annotations as write_particles
    from robpicker_jax.commands.notebook import Model, evaluate, load_model, simulate, train
    from robpicker_jax.config import load_config
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import open_volume, read_volume

__all__ = [
    "InputError",
    "Model",
    "Particles",
    "__version__",
    "evaluate",
    "load_config",
    "load_model",
    "open_volume",
    "read_particles",
    "read_volume",
    "simulate",
    "train",
    "write_particles",
]

_ORIGINS = {
    "InputError": "system.errors:InputError",
    "Model": "commands.notebook:Model",
    "Particles": "annotations:Particles",
    "evaluate": "commands.notebook:evaluate",
    "load_config": "config:load_config",
    "load_model": "commands.notebook:load_model",
    "open_volume": "volumes:open_volume",
    "read_particles": "annotations:read_annotations",
    "read_volume": "volumes:read_volume",
    "simulate": "commands.notebook:simulate",
    "train": "commands.notebook:train",
    "write_particles": "annotations:write_annotations",
}


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first used (PEP 562)."""
    if name not in _ORIGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _ORIGINS[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package. `train`, `simulate` and `evaluate` are functions here and also modules that `python -m` runs.

    Importing such a module would put it in the function's place; that is left out, and the function stays.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _ORIGINS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
