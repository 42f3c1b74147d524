"""Names of tomograms (fault B1): which ones mean the same tomogram, and what lists are written with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.names import NameRule, plain_name, plain_names
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import discover, load_particles
from robpicker_jax.datasets.lists import pair_tomograms
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast

STEMS = st.from_regex(r"[A-Z][A-Za-z]{0,3}_\d{1,3}", fullmatch=True)
FOLDERS = st.sampled_from(["", "/data/rec/", "..\\rec\\", "warp_tiltseries/"])
PREFIXES = st.sampled_from(["", "rec_"])
ENDINGS = st.lists(
    st.sampled_from(["_10.00Apx", "_12.23Apx", "_rec", "_bin4", ".bin8", "_half1", "_even", "_denoised", "_filt", "_full"]),
    max_size=3,
)  # fmt: skip
SUFFIXES = st.sampled_from(["", ".mrc", ".rec", ".mrc.gz", ".tomostar", ".mrc.mdoc", ".st", ".zarr", ".hdf"])


@given(STEMS, FOLDERS, PREFIXES, ENDINGS, SUFFIXES)
def test_b1_decorated_names_mean_their_tilt_series(
    stem: str, folder: str, prefix: str, endings: list[str], suffix: str
) -> None:
    name = f"{folder}{prefix}{stem}{''.join(endings)}{suffix}"
    rule = NameRule()
    assert rule.same(name, stem)
    assert rule.same(f"{stem}.tomostar", name)
    assert rule.matching(name, ["other_1", stem]) == [stem]
    assert not rule.same(name, f"{stem}7")
    assert plain_name(name) == f"{prefix}{stem}{''.join(endings)}"


@given(st.text(min_size=1, max_size=20))
def test_b1_written_names_stay_as_they_are_when_written_again(name: str) -> None:
    assert plain_name(plain_name(name)) == plain_name(name)
    assert plain_name(name)


def test_b1_the_closest_agreement_counts_and_doubt_is_refused() -> None:
    rule = NameRule()
    assert rule.matching("TS_01_half1", ["TS_01_half2", "TS_01_half1.mrc"]) == ["TS_01_half1.mrc"]
    assert rule.matching("TS_01", ["a/TS_01.mrc", "b/TS_01.rec"]) == ["a/TS_01.mrc", "b/TS_01.rec"]
    assert rule.matching("TS_01", ["TS_02", "TS_1"]) == []
    with pytest.raises(InputError, match="'TS_01_half1', 'TS_01_half2' may all mean the tomogram 'TS_01'"):
        rule.matching("TS_01", ["TS_01_half2", "TS_01_half1"])


def test_b1_a_pattern_says_what_counts() -> None:
    rule = NameRule.of(r"TS_\d+")
    assert rule.same("grid3_TS_07_lamella", "TS_07.tomostar")
    assert rule.matching("x_TS_07_y", ["TS_08", "z_TS_07"]) == ["z_TS_07"]
    assert rule.written("/a/x_TS_07_10.00Apx.mrc") == "TS_07"
    assert NameRule().written("rec_TS_07") == "rec_TS_07"
    assert NameRule.of("rec_(.*)").written("rec_TS_07") == "TS_07"
    for pattern in ("rec-(.*)", "rec(x?)_"):
        with pytest.raises(InputError, match="does not occur in 'rec_TS_07'"):
            NameRule.of(pattern).written("rec_TS_07")
    with pytest.raises(InputError, match="not a regular expression"):
        NameRule.of("(")


def test_b1_lists_are_written_with_plain_names(tmp_path: Path) -> None:
    both = Particles([[1, 2, 3], [4, 5, 6]], [1, 1], tomograms=["/data/TS_01.mrc", "TS_02.tomostar"])
    for name, fmt, row in (
        ("a.xml", "xml", "tomo_idx"),
        ("a.star", "warp", "TS_01.tomostar"),
        ("a.csv", "csv", "TS_01,"),
    ):
        write_annotations(tmp_path / name, both, fmt=fmt)
        assert row in (tmp_path / name).read_text()
        assert "/data" not in (tmp_path / name).read_text()
        assert ".mrc" not in (tmp_path / name).read_text()
        assert read_annotations(tmp_path / name, fmt=fmt).tomograms.tolist() == ["TS_01", "TS_02"]
    with pytest.raises(InputError, match="would both be written as 'TS_01'"):
        plain_names(np.array(["a/TS_01.mrc", "b/TS_01.mrc"]))


def test_b1_convert_selects_splits_and_renames_by_the_rule(tmp_path: Path) -> None:
    table = "tomogram,x_vox,y_vox,z_vox\n/d/rec_TS_01.mrc,1,2,3\n/d/rec_TS_02.mrc,4,5,6\n"
    (tmp_path / "in.csv").write_text(table)

    def run(*arguments: object) -> int:
        return call(convert.main, [str(tmp_path / "in.csv"), *map(str, arguments)])

    assert run(tmp_path / "one.xml", "--select", "TS_01_10.00Apx") == 0
    assert read_annotations(tmp_path / "one.xml").positions_vox.tolist() == [[1, 2, 3]]
    assert run(tmp_path / "split", "--split", "--to", "xml") == 0
    assert sorted(p.name for p in (tmp_path / "split").iterdir()) == ["rec_TS_01.xml", "rec_TS_02.xml"]
    assert run(tmp_path / "all.star", "--name-pattern", "rec_(.*)", "--to", "warp") == 0
    assert "TS_01.tomostar" in (tmp_path / "all.star").read_text()
    assert "rec_" not in (tmp_path / "all.star").read_text()


def test_b1_data_sets_find_lists_and_rows_by_the_rule(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    for name in ("TS_01_10.00Apx", "TS_02_rec_bin4"):
        write_mrc(tmp_path / "train" / f"{name}.mrc", volume, 10.0)
    write_annotations(tmp_path / "train" / "TS_01.xml", Particles([[1, 2, 3]], [1]))
    tables = Particles([[4, 5, 6], [1, 1, 1]], [1, 1], tomograms=["TS_02.tomostar", "TS_01.tomostar"])
    write_annotations(tmp_path / "train" / "particles.star", tables, fmt="warp")
    data = DataConfig(species=(Species("ribosome", 2.0),))
    first, second = discover(tmp_path)["train"]
    assert first.annotation_path is not None
    assert first.annotation_path.name == "TS_01.xml"
    assert load_particles(first, data, (8, 9, 10)).positions_vox.tolist() == [[1, 2, 3]]
    assert load_particles(second, data, (8, 9, 10)).positions_vox.tolist() == [[4, 5, 6]]


def test_b1_evaluation_pairs_by_the_rule() -> None:
    one, two = Particles([[1, 2, 3]], [1]), Particles([[4, 5, 6]], [1])
    paired, unknown = pair_tomograms({"TS_01": one, "TS_02": two}, {"TS_02_12.23Apx": two, "rec_TS_03": one})
    assert list(paired) == ["TS_02"]
    assert unknown == ["rec_TS_03"]
    paired, _ = pair_tomograms({"a_TS_01": one, "a_TS_02": two}, {"b_TS_02": two}, NameRule.of(r"TS_\d+"))
    assert list(paired) == ["a_TS_02"]
