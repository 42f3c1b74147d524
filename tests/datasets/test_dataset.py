"""Data sets: layouts, pairing, and a clear refusal of each kind of bad input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.annotations.bounds import inside, likely_reason, nearest_voxel
from robpicker_jax.annotations.names import same_tomogram
from robpicker_jax.config import MAX_SPECIES, Config, DataConfig, Species
from robpicker_jax.config.validation import check
from robpicker_jax.datasets import (
    TomogramFiles,
    agreed_voxel_size,
    discover,
    load_particles,
    load_target,
    open_tomogram,
    survey,
    tomograms_from,
)
from robpicker_jax.datasets.headers import check_patch_fits
from robpicker_jax.labels import label_maker
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.limits import few_files

pytestmark = pytest.mark.fast

SHAPE = (16, 24, 32)
DATA = DataConfig(species=(Species("ribosome", 3.0), Species("proteasome", 2.0)))


def volume(path: Path, shape: tuple[int, int, int] = SHAPE, voxel_size: float | None = 10.0, seed: int = 0) -> Path:
    write_mrc(path, np.random.default_rng(seed).normal(5, 2, shape).astype(np.float32), voxel_size)
    return path


def some_particles(n: int = 6, seed: int = 0, **columns: object) -> Particles:
    rng = np.random.default_rng(seed)
    return Particles(rng.uniform(0, 15, (n, 3)), rng.integers(1, 3, n), **columns)


def data_set(root: Path) -> Path:
    for split in ("train", "meta", "val", "test"):
        volume(root / split / f"{split}0.mrc")
        write_annotations(root / split / f"{split}0_objl.xml", some_particles())
    return root


def only(root: Path, split: str = "train") -> TomogramFiles:
    (tomogram,) = discover(root)[split]
    return tomogram


def test_the_layout_of_the_docs(tmp_path: Path) -> None:
    found = discover(data_set(tmp_path))
    assert {split: [t.name for t in found[split]] for split in found} == {
        "train": ["train0"],
        "meta": ["meta0"],
        "val": ["val0"],
        "test": ["test0"],
    }
    assert only(tmp_path).annotation_path == tmp_path / "train" / "train0_objl.xml"
    assert survey(found, DATA, 16).voxel_size_angstrom == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("volume_name", "list_name"),
    [
        ("TS_01.mrc", "TS_01_objl.xml"),
        ("TS_01.rec", "TS_01.xml"),
        ("TS_01.map", "TS_01_objl.xml"),
        ("TS_01.mrc.gz", "TS_01_objl.xml"),
        ("137.mrc", "tomo0137_objl.xml"),
        ("137.mrc", "tomo137_objl.xml"),
        ("0137.mrc", "tomo0137_objl.xml"),
        ("a.b.c.mrc", "a.b.c_objl.xml"),
    ],
)
def test_names_that_belong_together(tmp_path: Path, volume_name: str, list_name: str) -> None:
    volume(tmp_path / "train" / volume_name)
    write_annotations(tmp_path / "train" / list_name, some_particles())
    assert only(tmp_path).annotation_path == tmp_path / "train" / list_name


def test_deepfinder_layout_with_targets(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        volume(tmp_path / split / "tomo3.mrc")
        labels = np.zeros(SHAPE, np.uint8)
        labels[3, 4, 5] = 2
        write_mrc(tmp_path / split / "tomo3_target.mrc", labels, 10.0)
        write_annotations(tmp_path / split / "tomo3_objl.xml", some_particles())
    found = discover(tmp_path)
    assert [t.name for t in found["train"] + found["val"]] == ["tomo3", "tomo3"]
    target = load_target(found["val"][0], 2, SHAPE)
    assert target.dtype == np.uint8
    assert np.argwhere(target).tolist() == [[3, 4, 5]]
    with pytest.raises(InputError, match="values from 0 to 2, not whole numbers 0 to 1"):
        load_target(found["val"][0], 1, SHAPE)
    with pytest.raises(InputError, match="label map of"):
        load_target(found["val"][0], 2, (1, 2, 3))


def test_one_list_for_the_whole_folder(tmp_path: Path) -> None:
    particles = some_particles(9, tomograms=np.repeat(["0", "1", "tomo_0002"], 3))
    for index in range(3):
        volume(tmp_path / "train" / f"tomo{index}.mrc")
    write_annotations(tmp_path / "train" / "object_list_train.xml", particles)
    tomograms = discover(tmp_path)["train"]
    for index, tomogram in enumerate(tomograms):
        loaded = load_particles(tomogram, DATA, SHAPE)
        np.testing.assert_allclose(loaded.positions_vox, particles.positions_vox[3 * index : 3 * index + 3])
    volume(tmp_path / "train" / "tomo7.mrc")
    with pytest.raises(InputError, match=r"tomo7.* 0, 1, tomo_0002"):
        load_particles(discover(tmp_path)["train"][-1], DATA, SHAPE)


def test_a_tomogram_without_annotations_is_kept_but_cannot_be_trained_on(tmp_path: Path) -> None:
    volume(tmp_path / "test" / "bare.mrc")
    volume(tmp_path / "train" / "bare.mrc")
    found = discover(tmp_path)
    loaded = open_tomogram(found["test"][0], DATA)
    assert loaded.particles is None
    assert loaded.density.shape == SHAPE
    with pytest.raises(InputError, match=r"without annotations; put bare_objl\.xml"):
        open_tomogram(found["train"][0], DATA)


def test_clean_truth_beside_noisy_labels_is_not_taken_for_them(tmp_path: Path) -> None:
    volume(tmp_path / "train" / "a.mrc")
    write_annotations(tmp_path / "train" / "a_truth_objl.xml", some_particles())
    assert only(tmp_path).annotation_path is None


def test_paths_of_a_command_line(tmp_path: Path) -> None:
    data_set(tmp_path)
    volume(tmp_path / "test" / "more.rec")
    (tmp_path / "empty").mkdir()
    names = [t.name for t in tomograms_from([tmp_path / "test", tmp_path / "val" / "val0.mrc", tmp_path / "test"])]
    assert names == ["more", "test0", "val0"]
    assert tomograms_from([tmp_path / "test" / "test0.mrc"])[0].annotation_path is not None
    for suffix in (".star", ".csv"):
        write_annotations(tmp_path / "test" / f"more{suffix}", some_particles())
    assert tomograms_from([tmp_path / "test" / "test0.mrc"])[0].annotation_path is not None
    assert tomograms_from([tmp_path / "test"], annotations=False)[0].annotation_path is None
    with pytest.raises(InputError, match=r"\bmore: more\.csv, more\.star"):
        tomograms_from([tmp_path / "test"])
    target = tmp_path / "test" / "test0_target.mrc"
    volume(target)
    assert tomograms_from([target])[0].volume_path == target
    for path, message in [
        (tmp_path / "gone.mrc", "no such file"),
        (tmp_path / "empty", "no volume in this folder"),
        (tmp_path / "test" / "test0_objl.xml", "no volume format has this suffix"),
        (tmp_path / "gone*.mrc", "no file matches this pattern"),
        (tmp_path / "test" / "*.xml", "no volume among what this pattern matches"),
    ]:
        with pytest.raises(InputError, match=message):
            tomograms_from([path])


def test_patterns_match_tomograms_as_the_shell_would(tmp_path: Path) -> None:
    """Lists, masks and label maps are passed over, as in a folder; a file whose name looks like a pattern is that file."""
    for name in ("a/TS_2", "a/TS_1", "a/TS_1_mask", "b/TS_3", "b/deep/TS_[4]", "b/TS_5_target"):
        volume(tmp_path / f"{name}.mrc")
    write_annotations(tmp_path / "a" / "TS_1_objl.xml", some_particles())

    def names(*patterns: str) -> list[str]:
        return [t.name for t in tomograms_from([tmp_path / pattern for pattern in patterns], annotations=False)]

    assert names("a/*.mrc") == names("a/*") == names("a/TS_?.mrc") == ["TS_1", "TS_2"]
    assert names("[ab]") == ["TS_1", "TS_2", "TS_3"]
    assert names("b/**/*.mrc") == ["TS_3", "TS_[4]"]
    assert names("b/deep/TS_[4].mrc", "a/*2.mrc", "a/TS_2.mrc", "a/TS_1.mrc") == ["TS_[4]", "TS_2", "TS_1"]
    assert names("b/*_target.mrc") == ["TS_5_target"]
    (listed,) = tomograms_from([tmp_path / "a" / "*_1.mrc"])
    assert listed.annotation_path == tmp_path / "a" / "TS_1_objl.xml"
    assert listed.mask_path == tmp_path / "a" / "TS_1_mask.mrc"


def test_a_folder_is_listed_once_however_many_of_its_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(5):
        volume(tmp_path / f"TS_{k}.mrc")
    listed = []
    before = Path.iterdir

    def counted(self: Path) -> Iterator[Path]:
        listed.append(self)
        return before(self)

    monkeypatch.setattr(Path, "iterdir", counted)
    assert len(tomograms_from(sorted(tmp_path.glob("*.mrc")), annotations=False)) == 5
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("name", "listed", "same"),
    [
        ("TS_01", "TS_01", True),
        ("TS_01", "TS_01.tomostar", True),
        ("TS_01", "/data/rec_TS_01.mrc", True),
        ("TS_01", "TS_1", False),
        ("tomo_0054", "54", True),
        ("0137", "137", True),
        ("13", "137", False),
        ("a", "b", False),
    ],
)
def test_tomogram_names_in_lists(name: str, listed: str, same: bool) -> None:
    assert same_tomogram(name, listed) is same


def test_missing_empty_and_ambiguous_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        discover(tmp_path / "absent")
    with pytest.raises(InputError, match="no train, meta, val or test folder"):
        discover(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no volume in train/"):
        discover(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        discover(tmp_path / "file")
    volume(tmp_path / "train" / "a.mrc")
    with pytest.raises(InputError, match="no tomogram in meta/"):
        survey(discover(tmp_path), DATA, 16)
    volume(tmp_path / "train" / "a.rec")
    with pytest.raises(InputError, match=r"two volumes named a in train: a\.mrc"):
        discover(tmp_path)


def test_wrong_classes(tmp_path: Path) -> None:
    tomogram = only(data_set(tmp_path))
    path = tmp_path / "train" / "train0_objl.xml"

    def load(data: DataConfig = DATA) -> Particles:
        return load_particles(tomogram, data, SHAPE)

    write_annotations(path, some_particles(3).with_(labels=[1, 7, 9]))
    with pytest.raises(InputError, match=r"class label 7 .*row 2 and 1 more.*1 ribosome, 2 proteasome"):
        load()
    write_annotations(path, some_particles(2).with_(labels=[0, 0]))
    with pytest.raises(InputError, match="no class is given"):
        load()
    assert load(DataConfig(species=DATA.species[:1])).labels.tolist() == [1, 1]
    swapped = some_particles(2).with_(labels=[1, 2], class_names=["proteasome", "ribosome"])
    write_annotations(path, swapped)
    with pytest.raises(InputError, match="named 'proteasome' but labelled 1, not 2"):
        load()


def test_positions_outside(tmp_path: Path) -> None:
    tomogram = only(data_set(tmp_path))
    path = tmp_path / "train" / "train0_objl.xml"
    good = np.array([[1.0, 2, 3], [30, 20, 14], [16, 3, 9]])

    def refusal(positions: np.ndarray) -> str:
        write_annotations(path, Particles(positions, [1] * len(positions)))
        with pytest.raises(InputError) as caught:
            load_particles(tomogram, DATA, SHAPE, 10.0)
        return str(caught.value)

    message = refusal(np.vstack([good, [[40, 3, 3]]]))
    assert re.search(r"1 of 4 .*32 x 24 x 16 .*row 4: 40 3 3", message)
    assert str(path) in message
    assert "in Å" in refusal(good * 10 + 1)
    assert "columns were z y x" in refusal(good[:, ::-1])
    assert "columns were y x z" in refusal(good[:, [1, 0, 2]])
    assert "at least 3.81 times smaller" in refusal(good * 4)  # B21: a bound, and no ladder of factors
    assert "from the volume's centre" in refusal(good - [16, 12, 8])
    assert "subtract 1" in refusal(good + 1.5)


def test_hints_are_only_given_when_they_explain_everything() -> None:
    positions = np.array([[500.0, 3, 3], [1, 1, 1], [-90, 2, 2]])
    assert likely_reason(positions, SHAPE, None) is None
    assert inside(np.array([[-0.5, 0, 0], [31.4, 23.4, 15.4], [31.5, 0, 0]]), SHAPE).tolist() == [True, True, False]


@given(st.lists(st.sampled_from(np.arange(-1.5, 34, 0.25).tolist()), min_size=3, max_size=3))
def test_a_position_inside_has_its_nearest_voxel_inside(position: list[float]) -> None:
    positions = np.array([position])
    voxels = nearest_voxel(positions)
    distance = positions - voxels  # a half belongs to the upper voxel
    assert ((distance >= -0.5) & (distance < 0.5)).all()
    in_volume = ((voxels >= 0) & (voxels < SHAPE[::-1])).all(axis=1)
    assert inside(positions, SHAPE).tolist() == in_volume.tolist()


def test_label_maps_hold_every_species_that_a_configuration_may_have() -> None:
    species = tuple(Species(f"s{k}", 0.5, density="map.mrc") for k in range(MAX_SPECIES))
    check(Config(data=DataConfig(species=species)))
    maker = label_maker(species, "sphere")
    last = Particles([[1.0, 2, 3]], [MAX_SPECIES])
    assert np.argwhere(maker.labels((5, 5, 5), last) == MAX_SPECIES).tolist() == [[3, 2, 1]]
    more = (*species, Species("one too many", 0.5, density="map.mrc"))
    with pytest.raises(InputError, match="256 species, but label maps hold 255"):
        check(Config(data=DataConfig(species=more)))
    with pytest.raises(InputError, match="256 species"):
        label_maker(more, "sphere")


def test_voxel_sizes_must_agree(tmp_path: Path) -> None:
    tomograms = [
        TomogramFiles("a", "train", volume(tmp_path / "a.mrc", voxel_size=7.84)),
        TomogramFiles("b", "train", volume(tmp_path / "b.mrc", voxel_size=None)),
        TomogramFiles("c", "train", volume(tmp_path / "c.mrc", voxel_size=7.85)),
    ]
    assert agreed_voxel_size(tomograms) == pytest.approx(7.84)
    assert agreed_voxel_size(tomograms[1:2]) is None
    assert agreed_voxel_size(tomograms[1:2], 10.0) == 10.0
    with pytest.raises(InputError, match=r"a\.mrc: .*7\.84 Å.*data\.voxel_size_angstrom.* 10 Å"):
        agreed_voxel_size(tomograms, 10.0)
    tomograms.append(TomogramFiles("d", "test", volume(tmp_path / "d.mrc", voxel_size=13.48)))
    with pytest.raises(InputError, match=r"d\.mrc: .*13\.48 Å.*a\.mrc .*7\.84 Å"):
        agreed_voxel_size(tomograms)


def test_a_header_that_does_not_know_its_voxel_size_takes_the_others(tmp_path: Path) -> None:
    data_set(tmp_path)
    volume(tmp_path / "train" / "train0.mrc", voxel_size=None)
    (tmp_path / "train" / "train0_objl.xml").unlink()
    table = "tomo_name,x,y,z,class\n" + "train0,100,50,20,ribosome\n" * 2
    (tmp_path / "train" / "train0_objl.csv").write_text(table)
    found = discover(tmp_path)
    data = replace(DATA, annotation_options={"csv": {"unit": "angstrom"}})
    surveyed = survey(found, data, 16)
    opened = surveyed.open(found["train"][0])
    assert opened.voxel_size_angstrom == surveyed.voxel_size_angstrom == pytest.approx(10.0)
    assert opened.particles is not None
    np.testing.assert_allclose(opened.particles.positions_vox[0], [10, 5, 2])


def test_a_survey_hands_on_each_volume_once_and_opens_it_anew_after_that(tmp_path: Path) -> None:
    found = discover(data_set(tmp_path))
    surveyed = survey(found, DATA, 16)
    files = found["train"][0]
    first, second = surveyed.open(files), surveyed.open(files, mode="mapped")
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    assert second.particles is first.particles
    second.close()
    with pytest.raises(ValueError, match="closed"):
        second.read((slice(0, 2),) * 3)
    assert len(surveyed.readers) == 3
    reader = surveyed.readers[found["test"][0]]
    surveyed.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()
    assert surveyed.open(found["test"][0]).density is not None


def test_a_data_set_of_more_tomograms_than_a_process_may_hold_open_at_first(tmp_path: Path) -> None:
    data_set(tmp_path)
    for number in range(40):
        volume(tmp_path / "test" / f"more{number}.mrc", seed=number)
    found = discover(tmp_path)
    with few_files(20):
        surveyed = survey(found, DATA, 16)
        assert len(surveyed.readers) == 43 + 1
        for files in found["test"]:
            assert surveyed.open(files, mode="mapped").shape_zyx == SHAPE
    surveyed.close()


def test_volume_smaller_than_a_patch(tmp_path: Path) -> None:
    found = discover(data_set(tmp_path))
    with pytest.raises(InputError, match=r"32 x 24 x 16 .*patch of 20.*patches\.size"):
        survey(found, DATA, 20)
    check_patch_fits(SHAPE, 16, "here")


def test_empty_list_truncated_volume_and_nan_voxels(tmp_path: Path) -> None:
    tomogram = only(data_set(tmp_path))
    (tmp_path / "train" / "train0_objl.xml").write_text("<objlist/>")
    opened = open_tomogram(tomogram, DATA)  # B18: a tomogram in which there is nothing is a wanted example
    assert opened.particles is not None
    assert len(opened.particles) == 0
    write_annotations(tmp_path / "train" / "train0_objl.xml", some_particles())
    content = bytearray(tomogram.volume_path.read_bytes())
    content[1024:1028] = np.float32(np.nan).tobytes()
    tomogram.volume_path.write_bytes(content)
    with pytest.raises(InputError, match="voxels are NaN"):
        open_tomogram(tomogram, DATA)
    tomogram.volume_path.write_bytes(content[:-4])
    with pytest.raises(InputError, match="truncated"):
        survey(discover(tmp_path), DATA, 16)
    write_mrc(tomogram.volume_path, np.ones(SHAPE, np.float32), 10.0)
    with pytest.raises(InputError, match=r"train0.mrc: all voxels have the same value"):
        open_tomogram(tomogram, DATA)


def test_loading_normalises_and_inverts(tmp_path: Path) -> None:
    tomogram = only(data_set(tmp_path))
    plain = open_tomogram(tomogram, DATA)
    assert plain.voxel_size_angstrom == pytest.approx(10.0)
    assert plain.density.mean() == pytest.approx(0, abs=1e-5)
    assert plain.density.std() == pytest.approx(1, abs=1e-5)
    assert len(plain.particles) == 6
    inverted = open_tomogram(tomogram, DataConfig(species=DATA.species, invert_contrast=True))
    np.testing.assert_allclose(inverted.density, -plain.density, atol=1e-5)


def test_masks_belong_to_tomograms_and_steer_normalisation(tmp_path: Path) -> None:
    data_set(tmp_path)
    mask = np.zeros(SHAPE, bool)
    mask[4:12] = True
    write_mrc(tmp_path / "train" / "train0_mask.mrc", mask)
    loaded = open_tomogram(only(tmp_path), DATA)
    np.testing.assert_array_equal(loaded.mask, mask)
    assert loaded.density[mask].mean() == pytest.approx(0, abs=1e-5)
    assert abs(loaded.density[~mask].mean()) > 1e-4
    write_mrc(tmp_path / "train" / "train0_mask.mrc", mask[1:])
    with pytest.raises(InputError, match="mask of"):
        open_tomogram(only(tmp_path), DATA)
    write_mrc(tmp_path / "train" / "train0_mask.mrc", np.zeros(SHAPE, bool))
    with pytest.raises(InputError, match=r"train0\.mrc: the mask is empty"):
        open_tomogram(only(tmp_path), DATA)


def test_real_lists_fit_their_volume(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "shrec2019"
    names = ["1bxn", "1qvr", "1s3x", "1u6g", "2cg9", "3cf3", "3d2f", "3gl1", "3h84", "3qm1", "4b4t", "4d8q"]
    tomogram = TomogramFiles("tomo_8", "meta", tmp_path / "tomo_8.mrc", folder / "object_list_train.xml")
    data = DataConfig(species=tuple(Species(name, 5.0) for name in names))
    particles = load_particles(tomogram, data, (200, 512, 512))
    assert len(particles) == 2490 == (folder / "object_list_valid.xml").read_text().count("<object ")
