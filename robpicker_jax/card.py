"""`card`: what a model's file says of itself."""

from __future__ import annotations

from robpicker_jax.commands.card import main
from robpicker_jax.commands.cli import run

if __name__ == "__main__":
    run(main)
