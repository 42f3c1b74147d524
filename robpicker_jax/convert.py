"""`convert`: particle lists from one format to another."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.convert import main

if __name__ == "__main__":
    run(main)
