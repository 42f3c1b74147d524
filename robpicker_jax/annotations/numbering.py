"""Tomograms in formats that know only numbers: which number is which tomogram, in a file beside the list.

The file has a line `NUMBER NAME` for each tomogram, as Dynamo's table map files (`.doc`) have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations.columns import tomogram_numbers
from robpicker_jax.system.files import write_text


def key_path(path: Path) -> Path:
    """Where the key of a list lies: `{stem}_tomograms.doc`."""
    return path.with_name(f"{path.stem}_tomograms.doc")


def needs_key(tomograms: np.ndarray | None) -> bool:
    """Whether numbers alone would not tell several tomograms by their names."""
    if tomograms is None or len(set(tomograms.tolist())) < 2:
        return False
    return [str(number) for number in tomogram_numbers(tomograms, len(tomograms))] != tomograms.tolist()


def write_key(path: Path, tomograms: np.ndarray | None) -> Path | None:
    """Write the key of a list where it needs one.

    Args:
        path: the list.
        tomograms: name of each particle's tomogram, as it was given to the list's writer.

    Returns:
        The file, None where no key is needed.
    """
    if tomograms is None or not needs_key(tomograms):
        return None
    numbers = tomogram_numbers(tomograms, len(tomograms))
    pairs = sorted(set(zip(numbers.tolist(), tomograms.tolist(), strict=True)))
    write_text(key_path(path), "".join(f"{number} {name}\n" for number, name in pairs))
    return key_path(path)
