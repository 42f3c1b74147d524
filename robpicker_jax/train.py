"""`train`: train a picker, pick the test tomograms, evaluate and report."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.train import main

if __name__ == "__main__":
    run(main, keep_memory=True)
