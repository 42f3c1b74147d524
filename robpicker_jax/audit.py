"""`audit`: which of one's own annotations are suspicious, by a trained model."""

from __future__ import annotations

from robpicker_jax.commands.audit import main
from robpicker_jax.commands.cli import run

if __name__ == "__main__":
    run(main)
