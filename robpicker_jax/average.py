"""`average`: subtomogram averages of picks, with FSC and masks."""

from __future__ import annotations

from robpicker_jax.commands.average import main
from robpicker_jax.commands.cli import run

if __name__ == "__main__":
    run(main)
