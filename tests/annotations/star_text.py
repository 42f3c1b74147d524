"""STAR files read by splitting lines: the tests' own reader, which shares nothing with the package's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


def star_rows(path: Path, block: str) -> list[dict[str, str]]:
    """The rows of one loop of a STAR file, split at white space."""
    text = path.read_text().split(f"data_{block}\n", 1)[1]
    names, rows = [], []
    for line in text.splitlines():
        if line.startswith("data_") and (names or rows):
            break
        if line.startswith("_"):
            names.append(line.split()[0][1:])
        elif line.strip() and not line.startswith(("#", "loop_")):
            rows.append(dict(zip(names, line.split(), strict=False)))
    return rows


def xyz(row: dict[str, str], pattern: str) -> np.ndarray:
    """Three numbers of a row; `?` in the pattern stands for X, Y, Z."""
    return np.array([float(row[pattern.replace("?", axis)]) for axis in "XYZ"])


def relion_rotation(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Reference frame to tomogram frame, by scipy: the inverse of RELION's intrinsic ZYZ."""
    return Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv().as_matrix()
