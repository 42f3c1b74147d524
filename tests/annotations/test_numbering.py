"""B10: files that say which number is which tomogram are read with the lists that hold the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.numbering import write_key
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.system.errors import InputError

NUMBERED = [name for name, fmt in FORMATS.items() if fmt.numbered]


def write(folder: Path, fmt: str, tomograms: list[str], *, key: bool = True) -> Path:
    path = folder / f"list{FORMATS[fmt].suffixes[0]}"
    particles = Particles(np.arange(3.0 * len(tomograms)).reshape(-1, 3) + 5, [1] * len(tomograms), tomograms=tomograms)
    write_annotations(path, particles, fmt=fmt)
    if key:
        write_key(FORMATS[fmt], path, particles.tomograms)
    return path


@pytest.mark.parametrize("fmt", NUMBERED)
def test_b10_names_come_back_by_the_key_that_was_written(tmp_path: Path, fmt: str) -> None:
    path = write(tmp_path, fmt, ["TS_07", "TS_31", "TS_07"])
    assert read_annotations(path, fmt=fmt).tomograms.tolist() == ["TS_07", "TS_31", "TS_07"]
    assert set(read_lists(path, fmt=fmt)) == {"TS_07", "TS_31"}
    out = tmp_path / "o.csv"
    assert call(convert.main, [str(path), str(out), "--from", fmt, "--select", "TS_31"]) == 0
    assert len(read_annotations(out)) == 1


@pytest.mark.parametrize("fmt", NUMBERED)
def test_b10_dynamos_own_key_and_a_key_of_any_name(tmp_path: Path, fmt: str) -> None:
    path = write(tmp_path, fmt, ["7", "31"])
    assert read_annotations(path, fmt=fmt).tomograms.tolist() == ["7", "31"]
    text = "# tomograms\n\n7 /data/rec/TS_07.mrc\n 31\tC:\\data\\TS_31.rec\n99 unused\n"
    (tmp_path / "list.doc").write_text(text)
    assert read_annotations(path, fmt=fmt).tomograms.tolist() == ["TS_07", "TS_31"]
    (tmp_path / "list.doc").rename(tmp_path / "other.doc")
    assert read_annotations(path, fmt=fmt).tomograms.tolist() == ["7", "31"]
    found = read_annotations(path, fmt=fmt, tomogram_names=tmp_path / "other.doc")
    assert found.tomograms.tolist() == ["TS_07", "TS_31"]


def test_b10_keys_that_do_not_serve(tmp_path: Path) -> None:
    path = write(tmp_path, "dynamo", ["7", "31"])
    key = tmp_path / "key.doc"
    for text, message in (
        ("7 a\n", "tomogram 31 of list.tbl is not in it"),
        ("7 a\nb 31\n", "line 2 is not NUMBER NAME"),
        ("7 a\n7 b\n31 c\n", "line 2 gives tomogram 7 a second name"),
    ):
        key.write_text(text)
        with pytest.raises(InputError, match=message):
            read_annotations(path, tomogram_names=key)
    with pytest.raises(InputError, match="cannot be read"):
        read_annotations(path, tomogram_names=tmp_path / "none.doc")
    (tmp_path / "list.doc").write_bytes(b"\xd0\xcf\x11\xe0 a document of a word processor")
    assert read_annotations(path).tomograms.tolist() == ["7", "31"]


def test_b10_no_stale_key_stays_beside_a_new_list(tmp_path: Path) -> None:
    path = write(tmp_path, "dynamo", ["TS_07", "TS_31"])
    assert (tmp_path / "list_tomograms.doc").is_file()
    write_annotations(tmp_path / "new.xml", Particles([[5, 6, 7]], [1], tomograms=["TS_99"]))
    given = [str(tmp_path / "new.xml"), str(path)]
    path.unlink()
    assert call(convert.main, given) == 2
    assert call(convert.main, [*given, "--overwrite"]) == 0
    assert not (tmp_path / "list_tomograms.doc").exists()


@pytest.mark.parametrize("fmt", NUMBERED)
def test_b10_the_key_has_the_names_and_numbers_of_the_list(tmp_path: Path, fmt: str) -> None:
    paths = write(tmp_path, fmt, ["/data/TS_31.mrc", "TS_07.tomostar"])
    assert read_annotations(paths, fmt=fmt).tomograms.tolist() == ["TS_31", "TS_07"]
    numbers = write(tmp_path, fmt, ["31.mrc", "7.mrc"])
    assert not (tmp_path / "list_tomograms.doc").exists()
    assert read_annotations(numbers, fmt=fmt).tomograms.tolist() == ["31", "7"]


@given(
    st.sampled_from(NUMBERED),
    st.lists(st.from_regex(r"[A-Za-z][\w ]{0,10}\w", fullmatch=True), min_size=2, max_size=6, unique=True),
    st.randoms(use_true_random=False),
)
def test_b10_any_names_survive(tmp_path_factory: Any, fmt: str, names: list[str], random: Any) -> None:
    listed = names + [random.choice(names) for _ in range(5)]
    path = write(tmp_path_factory.mktemp("key"), fmt, listed)
    assert read_annotations(path, fmt=fmt).tomograms.tolist() == listed
