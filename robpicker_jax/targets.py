"""`targets`: write label maps for a data set."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.targets import main

if __name__ == "__main__":
    run(main)
