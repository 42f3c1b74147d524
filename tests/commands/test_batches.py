"""Batches of tomograms (fault B6): a stopped batch goes on, shards fit together, and one bad file stops nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig
from robpicker_jax.picking.finished import Finished, entries
from robpicker_jax.picking.inference import MemoryBound
from robpicker_jax.picking.picker import PICKERS
from robpicker_jax.volumes import write_mrc
from tests.limits import few_files

pytestmark = pytest.mark.fast

NAMES = [f"TS_{k}" for k in range(5)]


class Brightest:
    """Picks the three brightest voxels, counts the tomograms that it saw, and may be stopped after some of them."""

    class_names = ("particle",)
    data = DataConfig()
    voxel_size_angstrom = None
    fingerprint = "brightest"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.stop_after = 99

    def tiles(self, shape_zyx: object) -> int:
        return 1

    def memory(self, shape_zyx: object, *, resident_bytes: int = 0) -> MemoryBound:
        return MemoryBound(host=1, device=0, shared=True)

    def pick(self, tomogram: object, on_tiles: object = None, *, mask: object = None) -> Particles:
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(tomogram.name)  # type: ignore[attr-defined]
        values = np.asarray(tomogram)
        order = np.argsort(values.ravel())[::-1][:3]
        zyx = np.stack(np.unravel_index(order, values.shape), axis=1)
        scores = values.ravel()[order].astype(float) / 7
        return Particles(zyx[:, ::-1] / 3, [1] * 3, scores=scores, class_names=["particle"] * 3)

    def with_min_scores(self, min_scores: object) -> Brightest:
        return self


@pytest.fixture
def picker(monkeypatch: pytest.MonkeyPatch) -> Brightest:
    found = Brightest()
    monkeypatch.setitem(PICKERS, "brightest", lambda source, overrides: found)
    return found


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_mrc(tmp_path / "in" / f"{name}.mrc", rng.normal(size=(6, 7, 8)).astype(np.float32), 10.0)
    return tmp_path / "in"


def run(volumes: Path, out: Path, *further: str) -> int:
    arguments = ["--picker", "brightest", "--workdir", str(volumes), "--out", str(out), *further]
    return call(pick.main, [*arguments, *map(str, sorted(volumes.glob("*.mrc")))])


def test_without_out_picks_go_to_picks(
    picker: Brightest, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert call(pick.main, ["--picker", "brightest", "--model", "../in", "../in/TS_0.mrc"]) == 0
    assert sorted(contents(Path("picks"))) == ["TS_0.csv", "TS_0.star", "TS_0.xml"]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("[!.]*"))}


@pytest.mark.parametrize("further", [(), ("--together",), ("--format", "csv", "--together")])
@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_b6_a_stopped_batch_goes_on_to_the_same_bytes(
    picker: Brightest, volumes: Path, tmp_path: Path, further: tuple[str, ...], stop_after: int
) -> None:
    assert run(volumes, tmp_path / "whole", *further) == 0
    assert picker.seen == NAMES
    picker.seen, picker.stop_after = [], stop_after
    assert run(volumes, tmp_path / "parts", *further) == 130
    picker.stop_after = 99
    assert run(volumes, tmp_path / "parts", *further) == 0
    assert picker.seen == NAMES  # none was picked twice
    assert run(volumes, tmp_path / "parts", *further) == 0
    assert picker.seen == NAMES
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_b6_what_changed_is_done_again_where_that_is_allowed(picker: Brightest, volumes: Path, tmp_path: Path) -> None:
    """Lists that are gone are made again; those that somebody changed, or that are outdated, with --overwrite alone."""
    out = tmp_path / "out"
    assert run(volumes, out) == 0
    picker.seen.clear()
    (out / "TS_2.csv").unlink()
    assert run(volumes, out) == 0
    assert picker.seen == ["TS_2"]
    picker.seen.clear()
    (out / "TS_1.star").write_text("edited")
    (out / "TS_2.csv").unlink()
    write_mrc(volumes / "TS_3.mrc", np.random.default_rng(9).normal(size=(6, 7, 8)).astype(np.float32), 10.0)
    before = contents(out)
    assert run(volumes, out) == 2
    assert (contents(out), picker.seen) == (before, [])
    assert run(volumes, out, "--overwrite") == 0
    assert picker.seen == ["TS_1", "TS_2", "TS_3"]
    picker.seen.clear()
    (out / ".finished" / "pick" / "TS_4.json").write_text("{")
    assert run(volumes, out) == 2
    assert run(volumes, out, "--overwrite") == 0
    assert picker.seen == ["TS_4"]
    for change in (("--format", "xml"), ("--format", "star", "--format-option", "binning=2")):
        picker.seen.clear()
        assert run(volumes, out, "--overwrite", *change) == 0
        assert picker.seen == NAMES
    picker.seen.clear()
    picker.fingerprint = "another model"  # type: ignore[misc]
    assert run(volumes, out) == 2
    assert picker.seen == []
    assert run(volumes, out, "--overwrite") == 0
    assert picker.seen == NAMES


@pytest.mark.parametrize("together", [False, True])
def test_b6_shards_give_the_whole(picker: Brightest, volumes: Path, tmp_path: Path, together: bool) -> None:
    further = ("--together",) if together else ()
    assert run(volumes, tmp_path / "whole", *further) == 0
    picker.seen.clear()
    assert run(volumes, tmp_path / "parts", "--shard", "2/2", *further) == 0
    assert picker.seen == NAMES[1::2]
    assert run(volumes, tmp_path / "parts", "--shard", "1/2", *further) == 0
    assert sorted(picker.seen) == NAMES
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    for wrong in ("0/2", "3/2", "x", "1/0", "1"):
        assert run(volumes, tmp_path / "parts", "--shard", wrong) == 2


@pytest.mark.parametrize("together", [False, True])
def test_b6_bad_files_are_left_out_on_request(
    picker: Brightest, volumes: Path, tmp_path: Path, together: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    further = ("--together",) if together else ()
    (volumes / "TS_1.mrc").write_bytes((volumes / "TS_1.mrc").read_bytes()[:-40])
    last = np.array(np.nan, "<f4").tobytes()
    (volumes / "TS_3.mrc").write_bytes((volumes / "TS_3.mrc").read_bytes()[:-4] + last)
    assert run(volumes, tmp_path / "out", *further) == 2
    assert "TS_1.mrc" in capsys.readouterr().err
    assert run(volumes, tmp_path / "out", "--skip-bad", *further) == 0
    shown = capsys.readouterr()
    assert "left out: TS_1" in shown.err
    assert "left out: TS_3" in shown.err
    assert "3 tomograms picked, 2 left out" in shown.out
    assert picker.seen == ["TS_0", "TS_2", "TS_4"]
    if together:
        assert set(read_annotations(tmp_path / "out" / "picks.xml").tomograms.tolist()) == {"TS_0", "TS_2", "TS_4"}
    else:
        assert sorted(path.name for path in (tmp_path / "out").glob("*.xml")) == ["TS_0.xml", "TS_2.xml", "TS_4.xml"]
    states = {entry.name: (entry.is_finished, entry.left_out) for entry in entries(tmp_path / "out", "pick")}
    assert {name for name, (finished, _) in states.items() if finished} == {"TS_0", "TS_2", "TS_4"}
    assert "truncated" in str(states["TS_1"][1])
    assert "NaN" in str(states["TS_3"][1])
    assert run(volumes, tmp_path / "out", "--skip-bad", *further) == 0
    assert "0 tomograms picked, 2 left out" in capsys.readouterr().out
    for name in NAMES:
        (volumes / f"{name}.mrc").write_bytes(b"no volume")
    assert run(volumes, tmp_path / "out", "--skip-bad", *further) == 2
    assert "none of 5 tomograms can be used" in capsys.readouterr().err


@pytest.mark.parametrize("together", [False, True])
def test_b6_a_shard_checks_its_own_tomograms_and_names_those_that_it_leaves_out(
    picker: Brightest, volumes: Path, tmp_path: Path, together: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    further = ("--together",) if together else ()
    (volumes / "TS_1.mrc").write_bytes(b"no volume")
    (volumes / "TS_3.mrc").write_bytes(b"no volume")
    out = tmp_path / "out"
    if not together:
        assert run(volumes, out, "--shard", "1/2") == 0  # the bad ones are of the other shard
    assert run(volumes, out, "--shard", "2/2", *further) == 2
    for part in "12":
        assert run(volumes, out, "--shard", f"{part}/2", "--skip-bad", *further) == 0
    shown = capsys.readouterr()
    assert picker.seen == NAMES[::2]
    assert "0 tomograms picked, 2 left out" in shown.out
    assert shown.err.count("left out: TS_1") == 1
    assert [entry.name for entry in entries(out, "pick") if entry.left_out] == ["TS_1", "TS_3"]
    if together:
        assert set(read_annotations(out / "picks.xml").tomograms.tolist()) == set(NAMES[::2])


@pytest.mark.parametrize("further", [(), ("--rescale",), ("--together",), ("--shard", "1/3")])
def test_more_tomograms_than_a_process_may_hold_open(
    picker: Brightest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: tuple[str, ...]
) -> None:
    if "--rescale" in further:
        monkeypatch.setattr(Brightest, "voxel_size_angstrom", 20.0)
    volumes, count = tmp_path / "in", 90
    for k in range(count):
        write_mrc(volumes / f"TS_{k:03d}.mrc", np.random.default_rng(k).normal(size=(4, 5, 6)).astype(np.float32), 10.0)
    with few_files(20):
        assert run(volumes, tmp_path / "out", "--format", "csv", *further) == 0
    assert len(picker.seen) == (count // 3 if "--shard" in further else count)


def test_a_file_that_changes_before_its_turn_is_left_out_or_ends_the_command(
    picker: Brightest,
    volumes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The header that was checked is that of the voxels that are read."""
    before = Brightest.pick

    def replacing(self: Brightest, tomogram: object, *arguments: object, **options: object) -> Particles:
        write_mrc(volumes / "TS_4.mrc", np.zeros((9, 9, 9), np.float32), 10.0)
        return before(self, tomogram, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Brightest, "pick", replacing)
    original = (volumes / "TS_4.mrc").read_bytes()
    for further, code in ((), 2), (("--skip-bad",), 0):
        (volumes / "TS_4.mrc").write_bytes(original)
        assert run(volumes, tmp_path / str(code), *further) == code
        assert "TS_4.mrc: has another size" in capsys.readouterr().err
        assert "TS_4.csv" not in contents(tmp_path / str(code))


def test_b6_without_a_fingerprint_nothing_counts_as_finished(
    picker: Brightest, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Brightest, "fingerprint")
    for further in ((), ("--overwrite",)):
        assert run(volumes, tmp_path / "out", "--together", *further) == 0
    assert len(picker.seen) == 2 * len(NAMES)


def test_b6_kept_picks_come_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    picks = Particles(
        rng.normal(size=(4, 3)) / 3,
        [1, 2, 1, 2],
        rotations=rng.normal(size=(4, 3, 3)),
        scores=[0.1, np.nan, 1 / 3, 0.7],
        cluster_sizes=[1, 2, 3, 4],
        class_names=["a", "b", "a", "ä"],
        extra={"a column": ["x", "y", "", "z"]},
    )
    records = Finished(tmp_path, "pick", {})
    records.keep_picks("TS_1", picks)
    back = records.kept_picks("TS_1")
    for column in ("positions_vox", "labels", "rotations", "scores", "cluster_sizes", "class_names"):
        np.testing.assert_array_equal(getattr(back, column), getattr(picks, column))
    assert back.extra["a column"].tolist() == ["x", "y", "", "z"]
    assert back.tomograms is None
