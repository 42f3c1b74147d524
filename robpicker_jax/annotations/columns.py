"""Text of annotation files to numbers and back: strict on what the record needs, lenient on extra columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from robpicker_jax.system.errors import InputError

LARGEST_LABEL = 2**31 - 1
SAME_LENGTH = 0.02  # largest relative difference of two lengths, rounded somewhere, that are one and the same

_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>", "nat"}  # how programs write a value that is not there


def check_positive(**options: float | None) -> None:
    """Refuse options that are given and not positive numbers.

    Raises:
        InputError: naming the option.
    """
    for name, value in options.items():
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{name} is {value}, not a positive number")


def agree(what: str, given: float, stated: float, where: Path | str, fix: str, *, says: str = "the file") -> None:
    """Refuse an option that contradicts what a file says: neither silently goes before the other.

    Args:
        what: what both are, as in "a voxel size of".
        given: the option's value.
        stated: what the file says.
        where: the file.
        fix: what a user can do about it.
        says: what says it, for the message.

    Raises:
        InputError: they differ by more than 2 %.
    """
    if abs(given - stated) > SAME_LENGTH * abs(stated):
        raise InputError(f"{what} {given:.5g} is given, but {says} says {stated:.5g}", where=where, fix=fix)


def required_voxel_size(voxel_size_angstrom: float | None, owner: str, path: Path) -> float:
    """The voxel size, for a list in Å; `owner` is what the list is called in the message.

    Raises:
        InputError: the voxel size is not given.
    """
    if not voxel_size_angstrom:
        raise InputError(f"{owner}'s coordinates are in Å", where=path, fix="give the voxel size")
    return voxel_size_angstrom


def parsed(text: str | float) -> float:
    """The number that a cell holds, by one rule for every text format: plain ASCII digits, no `1_000`.

    Raises:
        ValueError: no number.
    """
    if isinstance(text, str) and ("_" in text or not text.isascii()):
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


def floats(texts: Sequence[str | float], name: str, path: Path, row: Callable[[int], str]) -> np.ndarray:
    """Finite float64 numbers of a column.

    Args:
        texts: the column's cells, texts or numbers.
        name: the column's name in the file, for messages.
        path: the file, for messages.
        row: how the file's readers call the i-th record ("object 3", "row 12").

    Raises:
        InputError: for the first cell that is not a finite number.
    """
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = parsed(text)
        except (TypeError, ValueError, OverflowError):
            values[i] = np.nan
        if not np.isfinite(values[i]):
            raise InputError(f"{row(i)}: {name} is {str(text)[:40]!r}, not a finite number", where=path)
    return values


def is_missing(cell: object) -> bool:
    """Whether a cell says that its value is not known: absent, empty, `nan`, `None`, `<NA>` and the like."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or cell != cell


def optional_floats(
    texts: Sequence[str | float | None], name: str, path: Path, row: Callable[[int], str]
) -> np.ndarray:
    """Float64 numbers of a column, NaN where a cell is missing or infinite: a score or an angle that is not known.

    Raises:
        InputError: for the first other cell that is no number.
    """
    values = np.full(len(texts), np.nan)
    for i, text in enumerate(texts):
        if text is None or is_missing(text):
            continue
        try:
            values[i] = parsed(text)
        except (ValueError, OverflowError):
            raise InputError(f"{row(i)}: {name} is {str(text)[:40]!r}, not a number", where=path) from None
    values[np.isinf(values)] = np.nan
    return values


def optional_labels(
    texts: Sequence[str | float | None], name: str, path: Path, row: Callable[[int], str]
) -> np.ndarray:
    """Class labels of a column, int64: 0, the label of an unknown class, where a cell is missing.

    Raises:
        InputError: for the first other cell that is no whole number from 0.
    """
    return integers([0 if text is None or is_missing(text) else text for text in texts], name, path, row)


def labels_by_name(labels: np.ndarray, names: Sequence[str | None], by_name: Mapping[str, int] | None) -> np.ndarray:
    """The labels, and row by row, where a label is 0, that of the class's name; names not in `by_name` leave it 0."""
    named = np.array([(by_name or {}).get(name or "", 0) for name in names], np.int64).reshape(-1)
    return np.where(labels > 0, labels, named)


def known_or_zero(values: np.ndarray) -> np.ndarray:
    """The values, 0 where they are not finite, for formats that have no way to say that a value is unknown."""
    return np.where(np.isfinite(values), values, 0.0)


def number_names(numbers: np.ndarray) -> np.ndarray:
    """Names of tomograms from a column of numbers: "7" for 7.0, "" where the number is unknown."""
    return np.array(["" if np.isnan(value) else number(value) for value in numbers], np.str_)


def integers(
    texts: Sequence[str | float],
    name: str,
    path: Path,
    row: Callable[[int], str],
    *,
    smallest: int = 0,
    largest: int = LARGEST_LABEL,
) -> np.ndarray:
    """Whole numbers of a column ("3" and "3.0" alike), int64.

    Raises:
        InputError: for the first cell that is no whole number within [smallest, largest].
    """
    values = floats(texts, name, path, row)
    for i in np.flatnonzero((values != np.floor(values)) | (values < smallest) | (values > largest))[:1]:
        limit = f"from {smallest}" if largest == LARGEST_LABEL else f"from {smallest} to {largest}"
        raise InputError(f"{row(int(i))}: {name} is {str(texts[i])[:40]!r}, not a whole number {limit}", where=path)
    return values.astype(np.int64)


def typed(texts: Sequence[str | None]) -> np.ndarray:
    """An extra column: int64 or float64 where that loses nothing of the meaning, text otherwise.

    Zero-padded numbers ("0137") are names and stay text. An absent cell is NaN among numbers, "" among text.
    """
    present = [text for text in texts if text is not None]
    try:
        if present and len(present) == len(texts) and all(str(int(text)) == text.strip() for text in present):
            return np.array([int(text) for text in present], dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    padded = any(len(s := text.strip().lstrip("+-")) > 1 and s[0] == "0" and s[1].isdigit() for text in present)
    if present and not padded:
        try:
            return np.array([np.nan if text is None else parsed(text) for text in texts], dtype=np.float64)
        except (ValueError, OverflowError):
            pass
    return np.array(["" if text is None else text for text in texts], dtype=np.str_)


def number(value: object) -> str:
    """Shortest text that reads back as the same number; whole numbers without a decimal point."""
    if isinstance(value, (np.integer, int, np.bool_)):
        return str(int(value))
    as_float = float(value)  # type: ignore[arg-type]
    if as_float.is_integer() and abs(as_float) < 1e15:
        return str(int(as_float))
    return repr(as_float)


def cell(value: object) -> str:
    """Text of one cell of an extra column; NaN is the empty text."""
    if isinstance(value, (np.floating, float)):
        return "" if np.isnan(value) else number(value)
    return number(value) if isinstance(value, (np.integer, int, np.bool_)) else str(value)


def xml_text(text: str) -> str:
    """`text` without the control characters that XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def tomogram_numbers(tomograms: np.ndarray | None, n: int, *, largest: int = 999_999_999) -> np.ndarray:
    """Whole numbers for tomogram names, int64 (n,), for formats that know only numbers.

    Names that are numbers keep them when all are, and none is larger than `largest`; otherwise the tomograms are numbered
    from 1 in order of appearance.
    Without names all particles are of tomogram 1.
    """
    if tomograms is None:
        return np.ones(n, np.int64)
    names = [str(name) for name in tomograms]
    if all(name.isascii() and name.isdigit() and len(name) < 10 and int(name) <= largest for name in names):
        return np.array([int(name) for name in names], np.int64)
    order = {name: i + 1 for i, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names], np.int64)
