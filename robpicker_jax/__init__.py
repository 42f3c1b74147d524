"""RobPicker in pure JAX: particle picking in cryo-electron tomograms from noisy labels, by exact bi-level training.

In a notebook:

    import robpicker_jax as rp
    model = rp.load_model("runs/quickstart")                 # a training run's folder, or its file model.rpk
    table = model.pick("tomogram.mrc").to_dataframe()        # or an array (z, y, x), with voxel_size=… in Å

| name | what it does |
| --- | --- |
| `load_model` | a trained `Model`: `.pick`, `.segment`, `.with_options`, `.save` |
| `init`, `write_tomograms` | a configuration for your own data, and a folder of tomograms from arrays |
| `train`, `simulate` | the main job, and a simulated data set, from a configuration |
| `review`, `apply_review` | pages on which picks are reviewed, and the lists that the decisions leave |
| `read_particles`, `write_particles` | particle lists of every supported format, as `Particles` |
| `open_volume`, `read_volume` | tomograms: MRC, TIFF, OME-Zarr |
| `evaluate` | picks against true particles |
| `load_config` | a configuration from YAML and overrides |
| `InputError` | raised wherever the input is at fault: what, where, and how to fix it |

Each name is imported when it is first used: `import robpicker_jax` alone loads neither JAX nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robpicker_jax.commands.face import offer
from robpicker_jax.system.version import __version__

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.annotations import read_annotations as read_particles
    from robpicker_jax.annotations import write_annotations as write_particles
    from robpicker_jax.commands.notebook import Model, evaluate, init, load_model, simulate, train, write_tomograms
    from robpicker_jax.commands.notebook_review import apply_review, review
    from robpicker_jax.config import load_config
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import open_volume, read_volume

__all__ = [
    "InputError", "Model", "Particles", "__version__", "apply_review", "evaluate", "init", "load_config",
    "load_model", "open_volume", "read_particles", "read_volume", "review", "simulate", "train",
    "write_particles", "write_tomograms",
]  # fmt: skip

offer(__name__)
