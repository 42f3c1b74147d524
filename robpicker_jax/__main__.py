"""`python -m robpicker_jax VERB` and the console script `robpicker VERB`: the same front doors, by name."""

from __future__ import annotations

from robpicker_jax.commands.verbs import main

if __name__ == "__main__":
    main()
