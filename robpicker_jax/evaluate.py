"""`evaluate`: compare picks with the truth."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.evaluate import main

if __name__ == "__main__":
    run(main)
