"""`match`: particles of tomograms by template matching."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.match import main

if __name__ == "__main__":
    run(main)
