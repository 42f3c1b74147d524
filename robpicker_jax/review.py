"""`review`: a page on which picks are accepted, rejected and corrected, and the lists that the decisions leave."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.review import main

if __name__ == "__main__":
    run(main)
