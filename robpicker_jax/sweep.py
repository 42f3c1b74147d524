"""`sweep`: many trainings with other values of some fields, and which of them is best."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.sweep import main

if __name__ == "__main__":
    run(main)
