"""`init`: write a configuration for your own data, from what lies in a folder."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.init import main

if __name__ == "__main__":
    run(main)
