"""`spectrum`: tomograms with the amplitude spectrum of another one."""

from __future__ import annotations

from robpicker_jax.commands.cli import run
from robpicker_jax.commands.spectrum import main

if __name__ == "__main__":
    run(main)
