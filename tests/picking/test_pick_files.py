"""Files of picks: one for each tomogram or one for all, and what is refused before anything is picked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.picking.pick_files import PickFiles, PickTarget
from robpicker_jax.system.errors import InputError
from tests.annotations.star_text import star_rows, xyz

pytestmark = pytest.mark.fast

A, B = PickTarget("TS_07", (40, 60, 80), 10.0), PickTarget("TS_31", (30, 50, 70), 10.0)
ABLE = [name for name, fmt in FORMATS.items() if fmt.numbered or "tomograms" in fmt.keeps]


def picks(seed: int, n: int = 5) -> Particles:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 + 1
    positions = np.round(rng.uniform(0, 30, (n, 3)), 2)
    names = np.array(["ribosome", "proteasome"])[labels - 1]
    return Particles(positions, labels, scores=np.sort(rng.random(n))[::-1], class_names=names)


@pytest.mark.parametrize("fmt", ABLE)
def test_all_tomograms_in_one_file(fmt: str, tmp_path: Path) -> None:
    files = PickFiles(tmp_path, [fmt], together=True)
    files.check([A, B])
    parts = {"TS_07": picks(1), "TS_31": picks(2, 3)}
    paths = files.write_together([(A, parts["TS_07"]), (B, parts["TS_31"])])
    assert paths[0].name.startswith("picks")
    numbers = {}
    if FORMATS[fmt].numbered:
        numbers = dict(line.split() for line in (tmp_path / "picks_tomograms.doc").read_text().splitlines())
        assert sorted(numbers.values()) == ["TS_07", "TS_31"]
    options = {"tomograms": sizes_table(tmp_path)} if fmt == "relion5" else {}
    back = read_annotations(paths[0], fmt=fmt, voxel_size_angstrom=10.0, **options)
    assert back.tomograms is not None
    for name, part in parts.items():
        mine = back.select([numbers.get(str(other), str(other)) == name for other in back.tomograms])
        assert len(mine) == len(part)
        order = [np.abs(mine.positions_vox - position).sum(axis=1).argmin() for position in part.positions_vox]
        np.testing.assert_allclose(mine.positions_vox[order], part.positions_vox, atol=1e-4)
        if "scores" in FORMATS[fmt].keeps:
            assert mine.scores is not None
            assert part.scores is not None
            np.testing.assert_allclose(mine.scores[order], part.scores, atol=1e-6)


def sizes_table(folder: Path) -> Path:
    """RELION's tomograms table of A and B, at half the voxel size and one and a half times as many pixels."""
    columns = ("rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
    header = "\n".join(f"_{name} #{k}" for k, name in enumerate(columns, start=1))
    rows = "\n".join(f"{p.name} 5.0 {' '.join(str(2 * n) for n in reversed(p.shape_zyx))}" for p in (A, B))
    path = folder / "tomograms.star"
    path.write_text(f"data_global\n\nloop_\n{header}\n{rows}\n")
    return path


def test_relion_5_measures_each_tomogram_from_its_own_centre(tmp_path: Path) -> None:
    part = picks(3)
    PickFiles(tmp_path, ["relion5"], together=True).write_together([(A, part), (B, part)])
    rows = star_rows(tmp_path / "picks.star", "particles")
    assert [row["rlnTomoName"] for row in rows] == ["TS_07"] * 5 + ["TS_31"] * 5
    for row, place, position in zip(rows, [A] * 5 + [B] * 5, [*part.positions_vox, *part.positions_vox], strict=True):
        expected = (position - np.array(place.shape_zyx[::-1]) / 2) * 10.0
        np.testing.assert_allclose(xyz(row, "rlnCenteredCoordinate?Angst"), expected, atol=1e-4)


def test_options_reach_the_formats_that_know_them(tmp_path: Path) -> None:
    files = PickFiles(tmp_path, ["star", "dynamo", "xml"], options={"binning": 4, "first_voxel": 1})
    files.check([A])
    part = picks(4)
    paths = files.write(A, part)
    assert [path.name for path in paths] == ["TS_07.star", "TS_07.tbl", "TS_07.xml"]
    rows = star_rows(paths[0], "particles")
    np.testing.assert_allclose([xyz(row, "rlnCoordinate?") for row in rows], part.positions_vox * 4)
    np.testing.assert_allclose(np.loadtxt(paths[1])[:, 23:26], part.positions_vox * 4 + 1)
    np.testing.assert_allclose(read_annotations(paths[2]).positions_vox, part.positions_vox)


def test_formats_of_one_suffix_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = PickFiles(tmp_path, ["star", "relion5", "warp", "star"]).write(A, picks(5))
    assert [path.name for path in paths] == ["TS_07.star", "TS_07_relion5.star", "TS_07_warp.star"]


@pytest.mark.parametrize(
    ("formats", "together", "options", "places", "message"),
    [
        (["xlm"], False, {}, [A], "unknown format 'xlm'; one of xml"),
        (["xml"], False, {}, [A, A], "two tomograms are called TS_07"),
        (["xml", "czii"], False, {}, [PickTarget("x", (9, 9, 9))], "CZII.*voxel size is not known of x; give --data"),
        (["xml", "imod"], True, {}, [A, B], "IMOD model cannot tell tomograms apart in one file; leave it out.*xml, star"),
        (["star"], True, {}, [A, PickTarget("x", (9, 9, 9), 20.0)], r"different \(10 to 20 Å\) voxel sizes in one file"),
        (["star"], True, {}, [A, PickTarget("x", (9, 9, 9))], "known and unknown voxel sizes"),
        (["xml"], False, {"binning": 4}, [A], "xml has no option 'binning'; known: none"),
        (["star"], False, {"binnin": 4}, [A], "star has no option 'binnin'; known: binning"),
        (["star"], False, {"binning": "x"}, [A], "binning: input should be a valid number"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_told_before(
    tmp_path: Path, formats: list[str], together: bool, options: dict, places: list[PickTarget], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PickFiles(tmp_path, formats, together, options).check(places)


def test_voxels_of_different_sizes_may_share_a_file_in_voxels(tmp_path: Path) -> None:
    PickFiles(tmp_path, ["xml", "csv", "dynamo"], together=True).check([A, PickTarget("x", (9, 9, 9), 20.0)])


@pytest.mark.parametrize("fmt", ["dynamo", "stopgap", "em"])
def test_convert_numbers_tomograms_and_says_which(fmt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = Particles.concatenate([picks(k).with_(tomograms=[name] * 5) for k, name in enumerate(("TS_07", "TS_31"))])
    source, target = tmp_path / "in.xml", tmp_path / f"out{FORMATS[fmt].suffixes[0]}"
    write_annotations(source, both)
    assert call(convert.main, [str(source), str(target), "--to", fmt]) == 0
    out = capsys.readouterr().out
    assert "as numbers" in out
    assert (tmp_path / "out_tomograms.doc").read_text() == "1 TS_07\n2 TS_31\n"
    assert read_annotations(target, fmt=fmt).tomograms.tolist() == ["TS_07"] * 5 + ["TS_31"] * 5
    assert call(convert.main, [str(source), str(target), "--to", fmt]) == 2  # neither is overwritten
    target.unlink()
    assert call(convert.main, [str(source), str(target), "--to", fmt]) == 2
    assert "out_tomograms.doc" in capsys.readouterr().err
    write_annotations(source, both.with_(tomograms=["7"] * 5 + ["31"] * 5))
    (tmp_path / "out_tomograms.doc").unlink()
    assert call(convert.main, [str(source), str(target), "--to", fmt]) == 0
    assert not (tmp_path / "out_tomograms.doc").exists()  # numbers that are the names need no key
    assert set(read_annotations(target, fmt=fmt).tomograms.tolist()) == {"7", "31"}
    shutil.rmtree(tmp_path)


def test_b4_names_and_options_are_resolved_before_anything_is_picked(tmp_path: Path) -> None:
    """Fault B4: a tomogram that is not in the tomograms table was only found after all tiles had been computed."""
    table = sizes_table(tmp_path)
    for together in (False, True):
        files = PickFiles(tmp_path / "picks", ["xml", "relion5"], together, {"tomograms": str(table)})
        files.check([A, B])
        with pytest.raises(InputError, match=r"tomograms\.star: no tomogram 'TS_99' in it"):
            files.check([A, PickTarget("TS_99", A.shape_zyx, 10.0)])
        with pytest.raises(InputError, match="no such tomograms table"):
            PickFiles(tmp_path / "picks", ["relion5"], together, {"tomograms": "gone.star"}).check([A])
    writable = [name for name, entry in FORMATS.items() if entry.write is not None]
    PickFiles(tmp_path / "picks", writable).check([A, B])
    with pytest.raises(InputError, match="M species particles, Å cannot be written"):
        PickFiles(tmp_path / "picks", ["m_species"]).check([A])
    assert not (tmp_path / "picks").exists()


@pytest.mark.parametrize("fmt", [name for name, entry in FORMATS.items() if entry.write is not None])
def test_a_tomogram_without_picks_has_an_empty_list(tmp_path: Path, fmt: str) -> None:
    """The columns are there, with no row: a network that finds nothing still gives scores."""
    none = picks(1).with_(rotations=np.tile(np.eye(3), (5, 1, 1))).select([])
    files = PickFiles(tmp_path, [fmt])
    files.check([A])
    (path,) = files.write(A, none)
    back = read_annotations(path, fmt=fmt, voxel_size_angstrom=10.0, shape_zyx=A.shape_zyx, allow_empty=True)
    assert len(back) == 0


@pytest.mark.parametrize("together", [False, True])
def test_no_older_file_stays_of_a_class_that_has_no_picks_any_more(tmp_path: Path, together: bool) -> None:
    names = ["ribosome", "proteasome"]
    files = PickFiles(tmp_path, ["copick", "dynamo"], together=together)
    outputs = files.outputs_together([A], names) if together else files.outputs(A, names)

    def written(part: Particles) -> set[str]:
        if together:
            files.write_together([(A, part)], outputs)
        else:
            files.write(A, part, outputs)
        return {path.stem.rpartition("_")[2] for path in tmp_path.rglob("Picks/*.json")}

    (tmp_path / "mine.json").write_text("hours of work")
    everything = picks(1)
    assert written(everything) == {"ribosome", "proteasome"}
    assert written(everything.select(everything.labels == 1)) == {"ribosome"}
    assert written(everything.select([])) == {"particle"}
    assert written(everything) == {"ribosome", "proteasome"}
    assert (tmp_path / "mine.json").read_text() == "hours of work"
    assert len(list(tmp_path.glob("*.tbl"))) == 1
