"""`segment`: class maps of tomograms."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.segment import main

if __name__ == "__main__":
    run(main)
