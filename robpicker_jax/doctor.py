"""`doctor`: what is wrong with a data set, before training."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.doctor import main

if __name__ == "__main__":
    run(main)
