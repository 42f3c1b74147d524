"""`export`: a trained model as one file, with a card that says what it is and what it is worth."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.export import main

if __name__ == "__main__":
    run(main)
