"""STAR files as named tables of columns; the parsing and formatting is the starfile package's."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import columns
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text

Table = dict[str, np.ndarray]
_MOST_COLUMNS = 10_000  # the parser's time grows as the square of their number, and programs write fewer than 100
_CELL = re.compile(r"'[^']*'|\"[^\"]*\"|\S+", re.ASCII)

# Columns of names: "0137" must not become 137.
_TEXT = [
    "rlnTomoName",
    "rlnMicrographName",
    "rlnImageName",
    "rlnCtfImage",
    "rlnParticleName",
    "rlnTomoParticleName",
    "rlnTomoMdocName",
    "rlnTomoTiltSeriesName",
    "rlnTomoParticlesFile",
    "rlnTomoTomogramsFile",
    "rlnOpticsGroupName",
    "wrpSourceName",
    "tomo_name",
    "halfset",
]


def read_tables(path: Path) -> dict[str, Table]:
    """Read every block of a STAR file; a block without a loop is a table of one row.

    Raises:
        InputError: the file is empty, is no text, or does not follow the STAR syntax.
    """
    import starfile

    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=path)
    _check_rows(path)
    linecache.checkcache(str(path))  # starfile reads through this cache, which a failed parse leaves filled
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=_TEXT)
    except OSError:
        raise
    except Exception as error:  # starfile and pandas raise many kinds for malformed tables
        raise InputError(f"not readable as STAR ({type(error).__name__}: {str(error)[:120]})", where=path) from None
    finally:
        linecache.checkcache(str(path))
        linecache.cache.pop(str(path), None)
    if not blocks:
        raise InputError("no data block: not a STAR file", where=path)
    return {str(name): _table(block) for name, block in blocks.items() if block is not None}


def _check_rows(path: Path) -> None:
    """Refuse the first row of a loop that has another number of cells than its loop has columns.

    The parser would fill a row that is too short, or complain without saying where.
    """
    in_header, width = False, 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            cells = line.split()
            if not cells or cells[0].startswith("#"):
                continue
            if cells[0] == "loop_":
                in_header, width = True, 0
            elif cells[0].startswith("data_"):
                in_header, width = False, 0
            elif cells[0].startswith("_"):
                width = width + 1 if in_header else 0
                if width > _MOST_COLUMNS:
                    raise InputError(f"line {number}: a table of more than {_MOST_COLUMNS:,} columns", where=path)
            elif width:
                in_header = False
                plain = line.isascii() and len(cells) == width and "'" not in line and '"' not in line
                count = width if plain else len(_CELL.findall(line.split(" #")[0]))
                if count != width:
                    raise InputError(f"line {number}: {count} cells in a table of {width} columns", where=path)


def _table(block: Any) -> Table:
    found = {str(name): [block[name]] if isinstance(block, dict) else block[name] for name in block}
    return {name: _array(name, values) for name, values in found.items()}


def _array(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:  # the same column name twice: the first one counts
        array = array[:, 0] if array.ndim == 2 else array.reshape(-1)
    if array.dtype.kind in "iuf":
        return array
    cells = ["" if value is None or value != value else str(value) for value in array.tolist()]
    if name not in _TEXT and any(map(columns.is_missing, cells)):
        try:  # numbers among which some are missing, in a spelling that the parser takes for text
            return np.array([np.nan if columns.is_missing(cell) else float(cell) for cell in cells])
        except ValueError:
            pass
    return np.array(cells, np.str_)


def find_table(tables: Mapping[str, Table], wanted: Sequence[str], block: str | None, path: Path) -> Table | None:
    """The table that has all columns of one of the alternatives in `wanted` (each a space-separated list).

    Args:
        tables: the file's tables.
        wanted: alternatives, each column names separated by spaces.
        block: name of the block to take, None to find it.
        path: the file, for messages.

    Raises:
        InputError: `block` does not exist, or several tables qualify and none is called "particles".
    """
    if block is not None:
        if block not in tables:
            raise InputError(f"no block {block!r}", where=path, fix=f"its blocks: {', '.join(map(repr, tables))}")
        return tables[block]
    fitting = [name for name, table in tables.items() if any(set(w.split()) <= set(table) for w in wanted)]
    if len(fitting) > 1 and "particles" in fitting:
        fitting = ["particles"]
    if len(fitting) > 1:
        raise InputError(
            f"several blocks hold particles: {', '.join(fitting)}", where=path, fix="name one with the option block"
        )
    return tables[fitting[0]] if fitting else None


def optional_numbers(table: Table, names: Sequence[str], path: Path) -> np.ndarray:
    """The named columns as float64 (n, len(names)), NaN where a cell is missing.

    Raises:
        InputError: a column is missing or holds something that is neither a number nor missing.
    """

    def row(i: int) -> str:
        return f"row {i + 1}"

    for name in names:
        if name not in table:
            raise InputError(f"column {name} is missing", where=path)
    return np.stack([columns.optional_floats(table[name].tolist(), name, path, row) for name in names], axis=1)


def numbers(table: Table, names: Sequence[str], path: Path) -> np.ndarray:
    """The named columns as finite float64 (n, len(names)).

    Raises:
        InputError: a column is missing or holds something else than finite numbers.
    """
    result = []
    for name in names:
        if name not in table:
            raise InputError(f"column {name} is missing", where=path)
        column = table[name]
        if column.dtype.kind not in "iuf" or not np.isfinite(column).all():
            for i, value in enumerate(column.tolist()):
                if not isinstance(value, int | float) or not np.isfinite(value):
                    raise InputError(f"row {i + 1}: {name} is {str(value)[:40]!r}, not a finite number", where=path)
        result.append(column.astype(np.float64))
    return np.stack(result, axis=1)


def has(table: Table, names: Sequence[str]) -> bool:
    """Whether the table has all of the named columns."""
    return all(name in table for name in names)


def write_tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write STAR tables; the same tables give the same bytes. One-row tables whose values are scalars have no loop."""
    import pandas as pd
    import starfile

    blocks: dict[str, Any] = {}
    for name, table in tables.items():
        if all(np.ndim(values) == 0 for values in table.values()):
            blocks[name] = {column: _clean(value) for column, value in table.items()}
        else:
            blocks[name] = pd.DataFrame({c: [_clean(v) for v in np.asarray(vs).tolist()] for c, vs in table.items()})
    text = starfile.to_string(blocks, na_rep="nan")
    write_text(path, re.sub(r"\A#[^\n]*\n+", "", text))  # starfile's first line holds the time of day


def _clean(value: Any) -> Any:
    """Text without the characters that the STAR syntax, as its readers know it, cannot quote."""
    return re.sub(r"[\"'#\x00-\x1f\x7f\x85\u2028\u2029]", "_", value) if isinstance(value, str) else value
