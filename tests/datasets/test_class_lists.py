"""One list for each class (fault B2), names without labels (B3), and lists that hold nothing or too much (B18)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands import convert, evaluate
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, DataConfig, Species
from robpicker_jax.datasets import discover, load_particles, survey
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc

pytestmark = pytest.mark.fast

SHAPE = (16, 18, 20)
DATA = DataConfig(species=(Species("80S ribosome", 3.0), Species("apo-ferritin", 2.0)))
BARE = "x,y,z\n{}\n"


def volume(path: Path, shape: tuple[int, int, int] = SHAPE) -> None:
    write_mrc(path, np.random.default_rng(0).normal(size=shape).astype(np.float32), 10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tomogram with one list for each class, the notes of a person, and a tomogram of a longer name."""
    train = tmp_path / "train"
    for name in ("TS_1", "TS_1_2"):
        volume(train / f"{name}.mrc")
    (train / "TS_1_80S-ribosome.csv").write_text(BARE.format("1,2,3"))
    (train / "TS_1_apoferritin.csv").write_text(BARE.format("4,5,6\n7,8,9"))
    (train / "TS_1_notes.csv").write_text("anything")
    (train / "TS_1_2_apo-ferritin.csv").write_text(BARE.format("10,11,12"))
    return tmp_path


def test_b2_one_list_for_each_class_of_a_whole_folder(tmp_path: Path) -> None:
    train = tmp_path / "train"
    for name in ("TS_01_10.00Apx", "TS_02_10.00Apx"):
        volume(train / f"{name}.mrc")
    (train / "80S ribosome.csv").write_text("x,y,z,tomogram\n1,2,3,TS_01\n4,5,6,TS_02\n7,8,9,TS_02\n")
    (train / "apoferritin.csv").write_text("x,y,z,tomogram\n10,11,12,TS_02\n")  # the first tomogram has none
    (train / "notes.csv").write_text("anything")
    first, second = discover(tmp_path)["train"]
    loaded = [load_particles(files, DATA, SHAPE) for files in (first, second)]
    assert [particles.positions_vox.tolist() for particles in loaded] == [
        [[1, 2, 3]],
        [[4, 5, 6], [7, 8, 9], [10, 11, 12]],
    ]
    assert [particles.labels.tolist() for particles in loaded] == [[1], [1, 1, 2]]
    codes = diagnose(tmp_path, Config(data=replace(DATA, meta_labels="sphere")), resources_too=False).codes
    assert not {"no_annotations", "unreadable_annotations", "class_unknown"} & set(codes)
    (train / "apoferritin.csv").write_text(BARE.format("10,11,12"))
    with pytest.raises(
        InputError, match=r"apoferritin\.csv: does not name tomograms.*TS_02_10\.00Apx_apoferritin\.csv"
    ):
        load_particles(second, DATA, SHAPE)
    clean = tmp_path / "clean.csv"  # a list in place of all others
    clean.write_text("x,y,z,class_label\n3,3,3,1\n")
    assert load_particles(second.with_list(clean), DATA, SHAPE).positions_vox.tolist() == [[3, 3, 3]]
    (train / "TS_02_10.00Apx.csv").write_text("x,y,z,class_label\n1,1,1,2\n")  # a list of its own goes before
    assert load_particles(discover(tmp_path)["train"][1], DATA, SHAPE).labels.tolist() == [2]


def test_b2_one_list_for_each_class_in_a_data_set(folder: Path) -> None:
    first, second = discover(folder)["train"]
    loaded = load_particles(first, DATA, SHAPE)
    assert loaded.positions_vox.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert loaded.labels.tolist() == [1, 2, 2]
    assert load_particles(second, DATA, SHAPE).positions_vox.tolist() == [[10, 11, 12]]
    assert not first.lists([])
    with pytest.raises(InputError, match=r"beside it .*TS_1_80S-ribosome\.csv.*named after no species"):
        load_particles(first, DataConfig(species=(Species("other", 1.0),)), SHAPE)
    found = read_lists(folder, split="train", class_names=["80S ribosome", "apo-ferritin"])
    assert {name: particles.labels.tolist() for name, particles in found.items()} == {"TS_1": [1, 2, 2], "TS_1_2": [2]}
    codes = diagnose(folder, Config(data=replace(DATA, meta_labels="sphere")), resources_too=False).codes
    assert not {"no_annotations", "unreadable_annotations", "class_unknown"} & set(codes)
    bare = diagnose(
        folder, None, resources_too=False
    )  # without a configuration the names of the files tell the classes
    assert not {"no_annotations", "unreadable_annotations"} & set(bare.codes)
    assert "80S-ribosome" in str(bare.as_dict())


def test_b2_one_list_for_each_class_without_volumes(tmp_path: Path) -> None:
    truth, picks = tmp_path / "truth", tmp_path / "picks"
    truth.mkdir()
    write_annotations(
        truth / "TS_1.xml", Particles([[1, 2, 3], [4, 5, 6]], [1, 2], class_names=["80S ribosome", "apo-ferritin"])
    )
    picks.mkdir()
    (picks / "TS_1_apo-ferritin.csv").write_text(BARE.format("4,5,6"))
    (picks / "TS_1_80s_ribosome.csv").write_text(BARE.format("1,2,3\n9,9,9"))
    found = read_lists(picks, class_names=["80S ribosome", "apo-ferritin"])
    assert list(found) == ["TS_1"]
    assert sorted(found["TS_1"].labels.tolist()) == [1, 1, 2]
    arguments = ["--truth", str(truth), "--picks", str(picks), "--classes", "80S ribosome,apo-ferritin"]
    assert call(evaluate.main, [*arguments, "--rule", "tolerance", "--tolerance", "1"]) == 0


def test_b2_convert_joins_lists_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, row in (("a", "1,2,3"), ("b", "4,5,6")):
        (tmp_path / f"{name}.csv").write_text(BARE.format(row))

    def run(*arguments: str) -> int:
        return call(convert.main, [str(tmp_path / a) if a.endswith((".csv", ".xml")) else a for a in arguments])

    assert run("a.csv", "b.csv", "out.xml", "--class", "ribosome", "--class", "ferritin") == 0
    both = read_annotations(tmp_path / "out.xml")
    assert both.labels.tolist() == [1, 2]
    assert both.class_names.tolist() == ["ribosome", "ferritin"]
    assert run("a.csv", "--class", "x", "b.csv", "--class-labels", "y=1,x=3", "same.xml") == 0
    assert read_annotations(tmp_path / "same.xml").labels.tolist() == [3, 3]
    assert run("a.csv", "one.xml", "--class-labels", "ribosome=4") == 0  # a single label can only mean this list
    assert read_annotations(tmp_path / "one.xml").labels.tolist() == [4]
    capsys.readouterr()
    assert run("a.csv", "none.xml", "--class-labels", "x=1,y=2") == 0
    assert "a.csv names no class, and --class-labels none for it (--class x|y)" in capsys.readouterr().out
    for arguments, message in [
        (("a.csv", "no.xml", "--class", "z", "--class-labels", "x=1,y=2"), "'z' is not among --class-labels"),
        (("out.xml", "no.xml", "--class", "z"), "names classes itself"),
        (("a.csv", "b.csv", "a.csv", "no.xml", "--class", "z", "--class", "y"), "2 classes for 3 lists"),
    ]:
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "no.xml").exists()


def test_b2_convert_divides_a_list_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = Particles([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [2, 1, 2], class_names=["a", "b", "a"], tomograms=list("xyx"))
    write_annotations(tmp_path / "both.xml", both)
    for chosen, rows in [("a", [0, 2]), ("2", [0, 2]), ("b", [1])]:
        out = tmp_path / f"{chosen}.xml"
        assert call(convert.main, [str(tmp_path / "both.xml"), str(out), "--select-class", chosen]) == 0
        found = read_annotations(out)
        assert found.positions_vox.tolist() == both.positions_vox[rows].tolist()
        assert found.tomograms.tolist() == both.tomograms[rows].tolist()
    capsys.readouterr()
    assert call(convert.main, [str(tmp_path / "both.xml"), str(tmp_path / "c.xml"), "--select-class", "c"]) == 2
    assert "no particle of class c; its classes: 1, 2, a, b" in capsys.readouterr().err


@pytest.mark.parametrize("fmt", ["xml", "star", "csv", "warp"])
def test_b3_a_known_name_without_a_label_is_that_class(tmp_path: Path, fmt: str) -> None:
    named = Particles([[1, 2, 3], [4, 5, 6]], [0, 0], class_names=["apo-ferritin", "80S ribosome"])
    volume(tmp_path / "train" / "a.mrc")
    path = tmp_path / "train" / ("a.star" if fmt == "warp" else f"a.{fmt}")
    write_annotations(path, named, fmt=fmt)
    (tomogram,) = discover(tmp_path)["train"]
    assert sorted(load_particles(tomogram, DATA, SHAPE).labels.tolist()) == [1, 2]
    codes = diagnose(tmp_path, Config(data=replace(DATA, meta_labels="sphere")), resources_too=False).codes
    assert "class_unknown" not in codes


def test_b18_empty_lists_thin_tomograms_and_stray_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, shape in (("train", SHAPE), ("meta", SHAPE), ("val", (6, 18, 20)), ("test", (6, 18, 20))):
        volume(tmp_path / split / f"{split}.mrc", shape)
        some = Particles([[1, 2, 3]], [1]) if split in ("train", "meta") else Particles.empty()
        write_annotations(tmp_path / split / f"{split}.xml", some)
    volume(tmp_path / "train" / "negative.mrc")
    write_annotations(tmp_path / "train" / "negative.xml", Particles.empty())
    found = survey(discover(tmp_path), DATA, 16)
    assert {files.name: len(particles) for files, particles in found.particles.items()} == {
        "negative": 0,
        "train": 1,
        "meta": 1,
        "val": 0,
        "test": 0,
    }
    found.close()
    volume(tmp_path / "meta" / "meta.mrc", (6, 18, 20))
    with pytest.raises(InputError, match=r"meta\.mrc: .*smaller than a patch of 16"):
        survey(discover(tmp_path), DATA, 16)
    tomogram = discover(tmp_path)["train"][1]
    write_annotations(tomogram.lists(())[0][1], Particles([[1, 2, 3], [20 + 3, 1, 1]], [1, 1]))
    with pytest.raises(InputError, match="1 of 2 positions lie outside"):
        load_particles(tomogram, DATA, SHAPE)
    kept = load_particles(tomogram, replace(DATA, outside="drop"), SHAPE)
    assert kept.positions_vox.tolist() == [[1, 2, 3]]
    assert "1 of 2 positions outside the volume are left out" in capsys.readouterr().out
    write_annotations(tomogram.lists(())[0][1], Particles([[1, 2, 3], [4, 5, 6]], [0, 1]))
    with pytest.raises(
        InputError, match=r"class label 0 is the background's .*add 1 to each if the file counts from 0"
    ):
        load_particles(tomogram, DATA, SHAPE)
