"""Tomograms in formats that know only numbers: which number is which tomogram, in a file beside the list.

This file is the *key* of the list. It has a line `NUMBER NAME` for each tomogram, as Dynamo's table map files (`.doc`) have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robpicker_jax.annotations.columns import tomogram_numbers
from robpicker_jax.annotations.format import Format
from robpicker_jax.system.files import write_text

KEY_SUFFIX = ".doc"


def needs_key(fmt: Format, tomograms: np.ndarray | None) -> bool:
    """Whether a list of this format would hold numbers that do not tell its several tomograms by their names."""
    if not fmt.numbered or tomograms is None or len(set(tomograms.tolist())) < 2:
        return False
    names: list[str] = tomograms.tolist()
    return [str(number) for number in tomogram_numbers(tomograms, len(tomograms))] != names


def key_path(fmt: Format, path: Path, tomograms: np.ndarray | None) -> Path | None:
    """Where the key of the list at `path` lies: `{stem}_tomograms.doc` beside it; None where it needs none."""
    return path.with_name(f"{path.stem}_tomograms{KEY_SUFFIX}") if needs_key(fmt, tomograms) else None


def write_key(fmt: Format, path: Path, tomograms: np.ndarray | None) -> Path | None:
    """Write the key of a list where it needs one.

    Args:
        fmt: the list's format.
        path: the list.
        tomograms: name of each particle's tomogram, as it was given to the list's writer.

    Returns:
        The file, None where no key is needed.
    """
    target = key_path(fmt, path, tomograms)
    if target is None or tomograms is None:
        return None
    numbers = tomogram_numbers(tomograms, len(tomograms))
    pairs = sorted(set(zip(numbers.tolist(), tomograms.tolist(), strict=True)))
    write_text(target, "".join(f"{number} {name}\n" for number, name in pairs))
    return target
