"""Tomograms in formats that know only numbers: which number is which tomogram, in a file beside the list.

This file is the *key* of the list. It has a line `NUMBER NAME` for each tomogram, as Dynamo's table map files (`.doc`) have,
in which names are mostly paths of volumes. A list is read by the key that the option `tomogram_names` gives, else by
`{stem}_tomograms.doc`, which is written with it, or `{stem}.doc` beside it; without a key the numbers are the names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from robpicker_jax.annotations.columns import tomogram_numbers
from robpicker_jax.annotations.format import Format
from robpicker_jax.annotations.names import plain_name, plain_names
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

KEY_SUFFIX = ".doc"
TOMOGRAM_NAMES = "file of lines NUMBER NAME that says which number is which tomogram; default: the .doc beside the list"
"""Help of the option `tomogram_names`."""


def needs_key(fmt: Format, tomograms: np.ndarray | None) -> bool:
    """Whether a list of this format would hold numbers that do not tell its several tomograms by their names."""
    if not fmt.numbered or tomograms is None:
        return False
    names = [plain_name(name) for name in tomograms.tolist()]  # as the list gets them
    return len(set(names)) > 1 and [str(number) for number in tomogram_numbers(np.array(names), len(names))] != names


def key_path(fmt: Format, path: Path, tomograms: np.ndarray | None) -> Path | None:
    """Where the key of the list at `path` lies: `{stem}_tomograms.doc` beside it; None where it needs none."""
    return own_key(path) if needs_key(fmt, tomograms) else None


def own_key(path: Path) -> Path:
    """The key that is written with a list."""
    return path.with_name(f"{path.stem}_tomograms{KEY_SUFFIX}")


def write_key(fmt: Format, path: Path, tomograms: np.ndarray | None) -> Path | None:
    """Write the key of a list where it needs one; else remove the key of a list that lay there before.

    Args:
        fmt: the list's format.
        path: the list.
        tomograms: name of each particle's tomogram, as it was given to the list's writer.

    Returns:
        The file, None where no key is needed.
    """
    target = key_path(fmt, path, tomograms)
    if target is None or tomograms is None:
        if fmt.numbered:
            own_key(path).unlink(missing_ok=True)
        return None
    names = plain_names(tomograms)
    numbers = tomogram_numbers(names, len(names))
    pairs = sorted(set(zip(numbers.tolist(), names.tolist(), strict=True)))
    write_text(target, "".join(f"{number} {name}\n" for number, name in pairs))
    return target


def named(numbers: np.ndarray, path: Path, key: str | Path | None) -> np.ndarray:
    """The names of tomograms that a list gives by number; the numbers themselves where there is no key.

    Args:
        numbers: text (n,), the number of each particle's tomogram, "" where it is unknown.
        path: the list.
        key: the option `tomogram_names`, None to look beside the list.

    Raises:
        InputError: no such key, a line of it that is not `NUMBER NAME`, or a number that it does not name.
    """
    found = _key(path, key)
    if found is None:
        return numbers
    file, names = found
    for number in dict.fromkeys(numbers.tolist()):
        if number and number not in names:
            raise InputError(
                f"tomogram {number} of {path.name} is not in it", where=file, fix="add it, or remove the file"
            )
    return np.array([names.get(number, "") for number in numbers.tolist()], np.str_)


def _key(path: Path, key: str | Path | None) -> tuple[Path, dict[str, str]] | None:
    if key is not None:
        return Path(key), _read_key(Path(key))
    if own_key(path).is_file():
        return own_key(path), _read_key(own_key(path))
    beside = path.with_suffix(KEY_SUFFIX)
    try:
        return (beside, _read_key(beside)) if beside.is_file() else None
    except InputError:  # a text document that happens to have the list's name
        return None


def _read_key(file: Path) -> dict[str, str]:
    """Name of each number, by `names.plain_name`: keys mostly have paths of volumes."""
    names: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError("not a text file", where=file) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=file) from None
    for i, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip()[0] in "#%":
            continue
        parts = re.fullmatch(r"\s*(\d+)(?:\.0*)?[\s,;:]+(\S.*?)\s*", line, re.ASCII)
        name = "" if parts is None else plain_name(parts[2].strip("'\""))
        if parts is None or not name:
            raise InputError(f"line {i} is not NUMBER NAME: {line.strip()[:40]!r}", where=file)
        number = str(int(parts[1]))
        if names.setdefault(number, name) != name:
            raise InputError(f"line {i} gives tomogram {number} a second name", where=file)
    return names
