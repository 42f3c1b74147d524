"""Where the names of `import robpicker_jax as rp` come from; none of their modules is imported here."""

from __future__ import annotations

from robpicker_jax.system.lazy import make_lazy

ORIGINS = {
    "InputError": "system.errors:InputError",
    "Model": "commands.notebook_model:Model",
    "Particles": "annotations:Particles",
    "apply_review": "commands.notebook_review:apply_review",
    "evaluate": "commands.notebook:evaluate",
    "init": "commands.notebook:init",
    "load_config": "config:load_config",
    "load_model": "commands.notebook_model:load_model",
    "open_volume": "volumes:open_volume",
    "read_particles": "annotations:read_annotations",
    "read_volume": "volumes:read_volume",
    "review": "commands.notebook_review:review",
    "simulate": "commands.notebook:simulate",
    "train": "commands.notebook:train",
    "write_particles": "annotations:write_annotations",
    "write_tomograms": "commands.notebook:write_tomograms",
}
"""Name → "module:attribute", the module relative to the package."""


def offer(package: str) -> None:
    """Let the package offer these names, each imported when it is first used."""
    make_lazy(package, ORIGINS)
