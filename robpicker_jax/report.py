"""`report`: write a run's report again."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.report import main

if __name__ == "__main__":
    run(main)
