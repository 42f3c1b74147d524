"""Plain text tables: rows of cells separated by white space, commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import columns
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

_DELIMITERS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TextTable:
    """Rows of cells, all of one width.

    Attributes:
        path: the file.
        rows: the cells.
        lines: line number of each row, from 1.
        header: names of the columns, None where the first row holds numbers already.
    """

    path: Path
    rows: list[list[str]]
    lines: list[int]
    header: list[str] | None = None

    @property
    def width(self) -> int:
        return len(self.rows[0]) if self.rows else len(self.header or ())

    def row(self, i: int) -> str:
        """How messages call the i-th row."""
        return f"line {self.lines[i]}"

    def column(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for row in self.rows]

    def floats(self, index: int, name: str) -> np.ndarray:
        """A column of finite numbers."""
        return columns.floats(self.column(index), name, self.path, self.row)

    def optional_floats(self, index: int, name: str) -> np.ndarray:
        """A column of numbers, NaN where a cell is missing."""
        return columns.optional_floats(self.column(index), name, self.path, self.row)

    def optional_labels(self, index: int, name: str) -> np.ndarray:
        """A column of class labels, 0 where a cell is missing."""
        return columns.optional_labels(self.column(index), name, self.path, self.row)

    def integers(self, index: int, name: str) -> np.ndarray:
        """A column of whole numbers from 0."""
        return columns.integers(self.column(index), name, self.path, self.row)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, whatever ends them.

    Raises:
        InputError: the file is no text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not a text file (byte {error.start} is not UTF-8)", where=path) from None
    if "\0" in text:
        raise InputError("not a text file (it holds a zero byte)", where=path)
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read(path: Path, *, header: bool = False) -> TextTable:
    """Read a text table; blank lines and lines that start with # are skipped.

    Args:
        path: the file.
        header: whether the first row may name the columns; it does when one of its cells is no number.

    Raises:
        InputError: the file is no text, or its rows differ in width.
    """
    numbered = [
        (i, line) for i, line in enumerate(read_lines(path), start=1) if line.strip() and line.lstrip()[0] != "#"
    ]
    delimiter = _delimiter(numbered[0][1]) if numbered else None
    rows, firsts = _split([line for _, line in numbered], delimiter, path)
    lines = [numbered[first][0] for first in firsts]
    names = None
    if header and rows and not all(_is_number(cell) for cell in rows[0]):
        names, rows, lines = [cell.strip() for cell in rows[0]], rows[1:], lines[1:]
    width = len(names) if names is not None else len(rows[0]) if rows else 0
    for line, row in zip(lines, rows, strict=True):
        if len(row) != width:
            raise InputError(f"line {line} has {len(row)} columns, not {width}", where=path)
    return TextTable(path, rows, lines, names)


def _delimiter(line: str) -> str | None:
    """The separator of a line: the commonest of those in use, None for white space."""
    counts = {delimiter: line.count(delimiter) for delimiter in _DELIMITERS}
    if counts[";"] > 1:  # commas beside semicolons are decimal commas
        return ";"
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else None


def _split(lines: Sequence[str], delimiter: str | None, path: Path) -> tuple[list[list[str]], list[int]]:
    """The cells of each row, and the index of the line that it begins in: a cell in quotes may go on over several."""
    if delimiter is None:
        return [line.split() for line in lines], list(range(len(lines)))
    cells, firsts, first = [], [], 0
    try:
        rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, strict=True)
        for row in rows:
            cells.append([cell.strip() for cell in row])
            firsts.append(first)
            first = rows.line_num
    except csv.Error as error:
        raise InputError(f"not readable as a table ({error})", where=path) from None
    if delimiter != ",":
        cells = [[cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row] for row in cells]
    return cells, firsts


def _is_number(cell: str) -> bool:
    try:
        columns.parsed(cell)
    except ValueError:
        return False
    return True


def first_row_width(start: bytes) -> int:
    """Number of cells, separated by white space, in the first row of a table whose file starts with `start`; or 0."""
    lines = (line.split() for line in start.splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
    return len(next(lines, []))


def write(path: Path, rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None, delimiter: str) -> None:
    """Write a text table; cells that hold the delimiter are quoted, control characters and a leading # become _."""
    rows = [[re.sub(r"^#|[\x00-\x1f\x7f]", "_", cell) for cell in row] for row in rows]
    if delimiter == " ":
        lines = [" ".join(row) for row in ([header] if header else []) + list(rows)]
        write_text(path, "".join(f"{line}\n" for line in lines))
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())
