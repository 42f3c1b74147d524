"""Data sets that are used as they lie: `data.splits`, `data.volumes` and `data.lists`, whoever reads them."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.averaging import Source, Transfer
from robpicker_jax.commands import evaluate
from robpicker_jax.commands.averaging_lists import read_picks
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.cross_validation import fold_config, prepare
from robpicker_jax.config import Config, DataConfig, Species, SplitsConfig, load_config
from robpicker_jax.datasets import SPLITS, dataset, load_particles, survey
from robpicker_jax.datasets.stamps import changed_files, stamps
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.labels.target_maps import write_targets
from robpicker_jax.models.trained_model import portable
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, write_mrc

pytestmark = pytest.mark.fast

SHAPE = (16, 18, 20)
SPECIES = (Species("ribosome", 3.0), Species("apo-ferritin", 2.0))
SHORT = ("ferritin", "ribosome")
NAMES = ("TS_01", "TS_02", "TS_03")
POSITIONS = {"TS_01": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "TS_02": [[7.0, 8.0, 9.0]]}


def volume(path: Path) -> None:
    write_mrc(path, np.random.default_rng(len(path.name)).normal(size=SHAPE).astype(np.float32), 10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as WarpTools leaves it: three tomograms at 10 Å, one again at 8 Å, the half maps of one, and a log."""
    for name in NAMES:
        volume(tmp_path / f"reconstruction/{name}_10.00Apx.mrc")
    volume(tmp_path / "reconstruction/TS_01_10.00Apx_half1.mrc")
    volume(tmp_path / "reconstruction/TS_01_10.00Apx_half2.mrc")
    (tmp_path / "reconstruction/log.txt").write_text("done")
    return tmp_path


def section(folder: Path, **values: object) -> DataConfig:
    values = {"splits": SplitsConfig(meta=("TS_02",)), **values}
    return DataConfig(dir=str(folder / "reconstruction"), species=SPECIES, **values)  # type: ignore[arg-type]


def warp_list(path: Path, *, label: int = 1, names: tuple[str, ...] = ("TS_01", "TS_02")) -> Path:
    """Positions of some tomograms in one list, whose rows name them as Warp does."""
    xyz = [position for name in names for position in POSITIONS[name]]
    tomograms = [f"{name}.tomostar" for name in names for _ in POSITIONS[name]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_annotations(path, Particles(xyz, [label] * len(xyz), tomograms=tomograms), fmt="csv")
    return path


def splits(data: DataConfig) -> dict[str, list[str]]:
    assert data.dir is not None
    found = dataset(data.dir, data)
    assert tuple(found) == SPLITS
    return {split: [files.name.removesuffix("_10.00Apx") for files in found[split]] for split in SPLITS if found[split]}


def particles(data: DataConfig) -> dict[str, list[list[float]]]:
    assert data.dir is not None
    found = [files for split in dataset(data.dir, data).values() for files in split]
    return {
        files.name[:5]: load_particles(files, data, SHAPE, 10.0).positions_vox.tolist()
        for files in found
        if files.lists([entry.name for entry in data.species])
    }


def test_one_list_for_all_tomograms_decides_what_is_train_and_what_is_test(folder: Path) -> None:
    data = section(folder, lists=str(warp_list(folder / "my picks.csv")))
    assert splits(data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}
    assert particles(data) == POSITIONS
    assert survey(dataset(data.dir or "", data), data, 16).voxel_size_angstrom == 10.0
    warp_list(folder / "my picks.csv", names=("TS_02",))  # what the list says now, not what it said
    with pytest.raises(InputError, match="no tomogram in train/"):
        survey(dataset(data.dir or "", data), data, 16)
    assert splits(data) == {"meta": ["TS_02"], "test": ["TS_01", "TS_03"]}


def test_a_list_for_all_that_names_one_tomogram_is_not_every_tomograms(folder: Path) -> None:
    data = section(folder, lists=(str(warp_list(folder / "a.csv", names=("TS_02",))),), splits=SplitsConfig())
    assert splits(data) == {"train": ["TS_02"], "test": ["TS_01", "TS_03"]}


def test_one_list_for_each_tomogram_in_a_folder_beside(folder: Path) -> None:
    (folder / "lists").mkdir()
    for name, xyz in POSITIONS.items():
        write_annotations(folder / f"lists/{name}.xml", Particles(xyz, [1] * len(xyz)))
    (folder / "lists/notes.csv").write_text("anything")
    data = section(folder, lists=(str(folder / "lists"),))
    assert splits(data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}
    assert particles(data) == POSITIONS
    files = tuple(str(folder / f"lists/{name}.xml") for name in POSITIONS)
    assert particles(replace(data, lists=files)) == POSITIONS
    beside = replace(data, lists=())  # lists in the folder of the tomograms itself
    for name in POSITIONS:
        (folder / f"lists/{name}.xml").rename(folder / f"reconstruction/{name}.xml")
    assert splits(beside) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}


def test_one_list_for_each_class(folder: Path) -> None:
    ribosomes = warp_list(folder / "run_12.csv")
    (folder / "ferritin").mkdir()
    (folder / "ferritin/TS_02.csv").write_text("x,y,z\n2,2,2\n")
    data = section(folder, lists={"ribosome": str(ribosomes), "apo-ferritin": str(folder / "ferritin")})
    assert splits(data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}
    found = dataset(data.dir or "", data)
    meta = load_particles(found["meta"][0], data, SHAPE, 10.0)
    assert (meta.positions_vox.tolist(), meta.labels.tolist()) == ([[7, 8, 9], [2, 2, 2]], [1, 2])
    assert load_particles(found["train"][0], data, SHAPE, 10.0).labels.tolist() == [1, 1]
    # Named after the classes, they need no mapping.
    warp_list(folder / "lists/ribosome.csv")
    warp_list(folder / "lists/apoferritin.csv", names=("TS_02",))
    named = section(folder, lists=str(folder / "lists"))
    assert particles(named) == {"TS_01": POSITIONS["TS_01"], "TS_02": POSITIONS["TS_02"] * 2}


@pytest.mark.parametrize("as_folder", [True, False])
def test_lists_of_all_classes_count_in_place_of_those_by_class(folder: Path, as_folder: bool) -> None:
    """A list by class, and one tomogram's list corrected in a review, which holds every class."""
    lists = {"ribosome": str(warp_list(folder / "run_12.csv")), "apo-ferritin": str(warp_list(folder / "f.csv"))}
    corrected = Particles([[3.0, 3.0, 3.0], [4.0, 4.0, 4.0]], [2, 1], tomograms=None if as_folder else ["TS_02"] * 2)
    path = folder / ("corrected/TS_02.csv" if as_folder else "corrected.csv")
    path.parent.mkdir(exist_ok=True)
    write_annotations(path, corrected, fmt="csv")
    lists = {"*": str(path.parent if as_folder else path), **lists}
    data = section(folder, lists=lists)
    found = dataset(data.dir or "", data)
    meta = load_particles(found["meta"][0], data, SHAPE, 10.0)
    assert (meta.positions_vox.tolist(), meta.labels.tolist()) == (corrected.positions_vox.tolist(), [2, 1])
    train = load_particles(found["train"][0], data, SHAPE, 10.0)
    assert (train.positions_vox.tolist(), train.labels.tolist()) == (POSITIONS["TS_01"] * 2, [1, 1, 2, 2])
    assert splits(data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}


def test_lists_of_all_classes_that_are_of_no_tomogram_are_refused(folder: Path) -> None:
    """Or somebody would train on the uncorrected lists and not know it."""
    lists = {"ribosome": str(warp_list(folder / "run_12.csv"))}
    (folder / "corrected").mkdir()
    write_annotations(folder / "corrected/TS_09.csv", Particles([[1.0, 1.0, 1.0]], [1]), fmt="csv")
    write_annotations(folder / "one.csv", Particles([[1.0, 1.0, 1.0]], [1], tomograms=["TS_09"]), fmt="csv")
    for given in ("corrected", "one.csv"):
        with pytest.raises(InputError, match=r"data\.lists\.\*: of no tomogram.*data\.name_pattern"):
            splits(section(folder, lists={**lists, "*": str(folder / given)}))
    with pytest.raises(InputError, match=r"data\.lists\.\*: no such file"):
        splits(section(folder, lists={**lists, "*": str(folder / "nowhere")}))
    # An empty list of its own says that nothing is in the tomogram.
    write_annotations(folder / "corrected/TS_02.csv", Particles(np.zeros((0, 3)), np.zeros(0, int)), fmt="csv")
    data = section(folder, lists={**lists, "*": str(folder / "corrected")})
    found = dataset(data.dir or "", data)
    assert [len(load_particles(found[split][0], data, SHAPE, 10.0)) for split in ("train", "meta")] == [2, 0]


def test_names_patterns_and_what_they_leave(folder: Path) -> None:
    lists = str(warp_list(folder / "a.csv"))
    assert splits(section(folder, lists=lists, splits=SplitsConfig(meta=("TS_02",), test=("*1",)))) == {
        "meta": ["TS_02"],
        "test": ["TS_01"],  # and no others, since test names its tomograms
    }
    by_pattern = SplitsConfig(train=("TS_0*",), meta=("TS_02_10.00Apx",), val=("rec_TS_03.mrc",))
    assert splits(section(folder, lists=lists, splits=by_pattern)) == {
        "train": ["TS_01"],
        "meta": ["TS_02"],
        "val": ["TS_03"],
    }
    for wrong, message in (
        (SplitsConfig(meta=("TS_09",)), r"data\.splits\.meta: no tomogram 'TS_09'.*there are TS_01_10\.00Apx"),
        (
            SplitsConfig(meta=("TS_01",), test=("TS_01",)),
            r"TS_01_10\.00Apx is in data\.splits\.meta and in data\.splits\.test",
        ),
        (SplitsConfig(meta=("*1",), test=("TS*",)), r"is in data\.splits\.meta and in data\.splits\.test"),
    ):
        with pytest.raises(InputError, match=message):
            splits(section(folder, lists=lists, splits=wrong))


def test_several_volumes_of_a_tomogram(folder: Path) -> None:
    volume(folder / "reconstruction/TS_01_8.00Apx.mrc")
    data = section(folder, lists=str(warp_list(folder / "a.csv")))
    with pytest.raises(InputError, match=r"several volumes of one tomogram.*data\.volumes"):
        splits(data)
    data = replace(data, volumes="*_10.00Apx.mrc")
    assert splits(data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}
    with pytest.raises(InputError, match=r"no volume that data\.volumes \(\*\.rec\) fits"):
        splits(replace(data, volumes="*.rec"))


def test_lists_elsewhere_serve_a_data_set_of_folders_too(folder: Path) -> None:
    for name, split in zip(NAMES, ("train", "meta", "test"), strict=True):
        volume(folder / f"DATA/{split}/{name}.mrc")
    (folder / "DATA/train/TS_01.csv").write_text("x,y,z\n0,0,0\n")  # data.lists takes its place
    data = DataConfig(dir=str(folder / "DATA"), species=SPECIES, lists=str(warp_list(folder / "a.csv")))
    assert particles(data) == POSITIONS
    with pytest.raises(InputError, match=r"holds train/, meta/ …, and data\.splits"):
        dataset(data.dir or "", replace(data, splits=SplitsConfig(meta=("TS_01",))))
    with pytest.raises(InputError, match=r"say with data\.splits"):
        dataset(folder / "reconstruction", DataConfig(species=SPECIES))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: str(folder / "none.csv"), r"data\.lists: no such file or folder"),
        (lambda folder: str(folder / "reconstruction/log.txt"), "first lines do not tell the format"),
        (lambda folder: {"ribosome": str(folder / "none")}, r"data\.lists\.ribosome: no such file or folder"),
        (lambda folder: str(folder / "empty"), r"data\.lists: no particle list in it"),
        (lambda folder: (str(folder / "one.csv"), str(folder / "two.csv")), "after no tomogram and no species"),
        (lambda folder: (str(folder / "a/TS_01.csv"), str(folder / "b/TS_01.csv")), "a second list of this name"),
        (lambda folder: str(folder / "bare.csv"), r"bare\.csv: names no tomograms.*TS_0._10\.00Apx\.csv"),
        (lambda folder: str(folder / "lists.doc"), "no annotation format has this suffix"),
    ],
)
def test_refusals_name_file_key_and_remedy(make: object, message: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    for name in ("one", "two", "a/TS_01", "b/TS_01"):
        warp_list(folder / f"{name}.csv")
    for name in ("bare.csv", "lists.doc"):
        (folder / name).write_text("x,y,z\n1,2,3\n")
    (folder / "reconstruction/log.txt").write_text("1 1 2 3\n")
    with pytest.raises(InputError, match=message):
        splits(section(folder, lists=make(folder)))  # type: ignore[operator]


def test_a_tomogram_that_is_named_for_meta_and_has_no_list(folder: Path) -> None:
    data = section(folder, lists=str(warp_list(folder / "a.csv")), splits=SplitsConfig(meta=("TS_03",)))
    with pytest.raises(InputError, match=r"TS_03.*without annotations.*take it out of data\.splits\.meta"):
        survey(dataset(data.dir or "", data), data, 16)
    config = Config(data=replace(data, meta_labels="sphere"))
    assert "no_annotations" in diagnose(data.dir or "", config, resources_too=False).codes


def test_folds_of_a_flat_folder_are_splits(folder: Path) -> None:
    (folder / "all.csv").write_text("x,y,z,class_label,tomogram\n" + "".join(f"5,5,5,1,{name}\n" for name in NAMES))
    config = Config(data=section(folder, lists=str(folder / "all.csv")))
    folds = prepare(config, folder / "CV", 3)
    assert sorted(fold.test[0] for fold in folds) == [f"{name}_10.00Apx" for name in NAMES]
    for number, fold in enumerate(folds, start=1):
        data = fold_config(config, folder / "CV", number, fold).data
        expected = {split: [name.removesuffix("_10.00Apx") for name in getattr(fold, split)] for split in splits(data)}
        assert splits(data) == expected
    assert [path.name for path in (folder / "CV").iterdir()] == ["folds.json"]


def written(folder: Path) -> Path:
    """A configuration with relative paths, beside the folders."""
    values = {
        "dir": "reconstruction",
        "splits": {"meta": ["TS_02"]},
        "lists": {"ribosome": "ribosome.csv", "apo-ferritin": "lists"},
        "voxel_size_angstrom": 10,
        "meta_labels": "sphere",
        "species": [{"name": entry.name, "radius_angstrom": 10 * entry.radius_vox} for entry in SPECIES],
    }
    warp_list(folder / "ribosome.csv")
    warp_list(folder / "lists/ferritin.csv", names=("TS_02",))
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"data": values, "patches": {"size": 16}}))
    return path


def test_paths_are_relative_to_the_file_or_to_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder)
    config = load_config(path)
    lists = {"ribosome": str(folder / "ribosome.csv"), "apo-ferritin": str(folder / "lists")}
    assert config.data.lists == lists
    assert splits(config.data) == {"train": ["TS_01"], "meta": ["TS_02"], "test": ["TS_03"]}
    monkeypatch.chdir(folder / "lists")
    all_classes = load_config(path, ["data.lists.*=corrected"])
    assert all_classes.data.lists == lists | {"*": str(folder / "lists/corrected")}
    here = load_config(path, ["data.lists.apo-ferritin=ferritin.csv"])
    assert here.data.lists == lists | {"apo-ferritin": str(folder / "lists/ferritin.csv")}
    assert load_config(path, ["data.lists=[ferritin.csv]"]).data.lists == (str(folder / "lists/ferritin.csv"),)
    assert load_config(path, ["data.lists=ferritin.csv"]).data.lists == str(folder / "lists/ferritin.csv")
    with pytest.raises(InputError, match=r"data\.lists\.p97: no such species"):
        load_config(path, ["data.lists.p97=ferritin.csv"])
    assert str(folder) not in repr(portable(config.data))


def test_every_reader_of_data_sets_honours_it(folder: Path) -> None:
    config = load_config(written(folder))
    data, directory = config.data, config.data.dir or ""
    before = stamps(dataset(directory, data))
    assert list(before["meta"]) == ["TS_02_10.00Apx.mrc", *(f"TS_02_10.00Apx/{name}.csv" for name in SHORT)]
    warp_list(folder / "lists/ferritin.csv", label=2, names=("TS_02", "TS_01"))
    changed = changed_files(before, stamps(dataset(directory, data)), ("train", "meta"))
    assert changed == ["train/TS_01_10.00Apx/ferritin.csv changed", "meta/TS_02_10.00Apx/ferritin.csv changed"]

    diagnosis = diagnose(directory, config, resources_too=False)
    assert not {"layout", "no_annotations", "split_missing", "unreadable_annotations"} & set(diagnosis.codes)
    assert diagnosis.class_counts["meta"] == {"ribosome": 1, "apo-ferritin": 1}

    arguments = ["--config", str(folder / "my.yaml"), "--truth", directory, "--picks", directory, "--split", "meta"]
    assert call(evaluate.main, [*arguments, "--json", str(folder / "scores.json")]) == 0
    assert yaml.safe_load((folder / "scores.json").read_text())["macro"]["f1"] == 1.0
    assert call(evaluate.main, [*arguments, "--json", str(folder / "ribosome.csv"), "--overwrite"]) == 2  # an input

    maps = write_targets(data, directory)
    assert [path.name for path in maps] == ["TS_01_10.00Apx_target.mrc", "TS_02_10.00Apx_target.mrc"]

    meta = dataset(directory, data)["meta"][0]
    with open_volume(meta.volume_path) as reader:
        sources = [Source(meta.name, reader, Transfer(-60.0, 60.0))]
        given = Namespace(picks=[Path(directory)], picks_format=None, picks_option=[], min_score=None)
        (picks,), names = read_picks(given, config, sources, 10.0, True)
    assert names == ["ribosome", "apo-ferritin"]
    assert (picks.positions_vox.tolist(), picks.labels.tolist()) == (
        POSITIONS["TS_02"] * 2,
        [2, 1],
    )  # in the order of data.lists
