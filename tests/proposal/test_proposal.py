"""What `init` finds in folders, what it proposes, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.annotations.options import options_for
from robpicker_jax.commands import init
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, load_config
from robpicker_jax.config.derived import overlap_of_tiles
from robpicker_jax.datasets import dataset
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.models.shipped import GENERAL
from robpicker_jax.proposal import propose
from robpicker_jax.proposal.commented import commented_yaml
from robpicker_jax.proposal.sizes import inference, patches
from robpicker_jax.proposal.sources import Source, find_source
from robpicker_jax.proposal.species import observed, parsed, with_radii
from robpicker_jax.proposal.splits import propose_splits
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.journeys.worlds import copick_project

pytestmark = pytest.mark.fast

SHAPE = (36, 44, 48)
VOXEL = 10.0
RADII = {"large": 7.0, "small": 3.5}


def tomogram(path: Path, seed: int, *, false: int = 0, voxel_size: float | None = VOXEL) -> Particles:
    """Write noise with dark balls of two sizes at a grid's places; the particles, some of which are false."""
    rng = np.random.default_rng(seed)
    density = rng.normal(size=SHAPE).astype(np.float32)
    centres = np.argwhere(np.ones((1, 2, 3))) * (0, 20, 16) + (18, 11, 8)  # z y x
    centres = centres + rng.integers((-4, -3, 0), (6, 3, 3), (6, 3))
    labels = np.array([1, 2, 1, 2, 1, 2])
    z, y, x = np.indices(SHAPE)
    for centre, label in zip(centres, labels, strict=True):
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        density[distance <= list(RADII.values())[label - 1]] -= 4
    write_mrc(path, density, voxel_size)
    positions = centres[:, ::-1].astype(float)
    positions[6 - false :, 2] = 3.0
    return Particles(positions, labels)


@pytest.fixture
def relion(tmp_path: Path) -> Path:
    """A RELION 5 project: two jobs of tomograms, half maps, and an optimisation set."""
    for job, names in (("job007", ("TS_01",)), ("job009", ("TS_01", "TS_02", "TS_03"))):
        folder = tmp_path / f"Tomograms/{job}/tomograms"
        listed = {name: tomogram(folder / f"rec_{name}.mrc", int(name[-1])) for name in names}
        for name in names:
            for half in (1, 2):
                write_mrc(folder / f"rec_{name}_half{half}.mrc", np.zeros((4, 4, 4), np.float32), VOXEL)
    (tmp_path / "Extract/job011").mkdir(parents=True)
    together = [p.with_(tomograms=[n] * len(p)) for n, p in listed.items() if n != "TS_03"]
    particles = tmp_path / "Extract/job011/particles.star"
    shapes = dict.fromkeys(listed, SHAPE)
    everything = Particles.concatenate(together)
    write_annotations(particles, everything, fmt="relion5", voxel_size_angstrom=VOXEL, shapes_zyx=shapes)
    rows = "".join(f"{name} {SHAPE[2] * 4} {SHAPE[1] * 4} {SHAPE[0] * 4} 2.5 4.0\n" for name in listed)
    columns = (
        "rlnTomoName",
        *(f"rlnTomoSize{a}" for a in "XYZ"),
        "rlnTomoTiltSeriesPixelSize",
        "rlnTomoTomogramBinning",
    )
    heading = "\n".join(f"_{name} #{k}" for k, name in enumerate(columns, start=1))
    (tmp_path / "tomograms.star").write_text(f"data_global\n\nloop_\n{heading}\n{rows}")
    (tmp_path / "Extract/job011/optimisation_set.star").write_text(
        f"data_\n\n_rlnTomoParticlesFile {particles}\n_rlnTomoTomogramsFile {tmp_path}/tomograms.star\n"
    )
    return tmp_path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Tomograms in one folder, with lists beside all but the last; that of t1 is the most careful one."""
    folder = tmp_path / "tomograms"
    for number, false in enumerate((1, 0, 2, 0)):
        particles = tomogram(folder / f"t{number}.mrc", number, false=false)
        if number < 3:
            write_annotations(folder / f"t{number}.xml", particles)
    return folder


def names(source: Source) -> dict[str, bool]:
    """Tomograms, and whether they have a list."""
    return {files.name: bool(files.annotation_path or files.class_lists) for files in source.tomograms}


def test_a_relion_project_is_used_as_it_lies(relion: Path) -> None:
    source = find_source(relion)
    assert source.data.dir == str(relion / "Tomograms/job009/tomograms")
    assert source.data.lists == (str(relion / "Extract/job011/optimisation_set.star"),)
    assert names(source) == {"rec_TS_01": True, "rec_TS_02": True, "rec_TS_03": False}
    assert (source.voxel_size_angstrom, source.is_flat) == (VOXEL, True)


def test_the_table_of_centred_lists_holds_for_their_format_alone(relion: Path) -> None:
    particles, table = relion / "Extract/job011/particles.star", relion / "tomograms.star"
    (relion / "Extract/job011/optimisation_set.star").unlink()
    out = relion / "my.yaml"
    assert call(init.main, [str(relion), "--species", "large:70,small:35", "--out", str(out)]) == 0
    options = load_config(out).data.annotation_options
    assert options_for(particles, options)["tomograms"] == str(table)
    corrected = relion / "TS_03.xml"
    write_annotations(corrected, Particles(np.ones((1, 3)), np.ones(1, int)))
    assert options_for(corrected, options) == {}


def test_lists_beside_in_a_folder_or_where_one_says(flat: Path) -> None:
    assert find_source(flat).data.lists == ()
    assert names(find_source(flat.parent)) == {"t0": True, "t1": True, "t2": True, "t3": False}
    lists = flat.parent / "lists"
    lists.mkdir()
    for path in flat.glob("*.xml"):
        path.rename(lists / path.name)
    assert find_source(flat.parent).data.lists == (str(lists),)
    with pytest.raises(
        InputError, match=r"no particle list of its tomograms.*--lists PATH.*" + f"pick --model {GENERAL}"
    ):
        find_source(flat)
    given = find_source(flat, lists=[str(lists)])
    assert given.data.lists == (str(lists),)
    assert names(given) == names(find_source(flat.parent))
    with pytest.raises(InputError, match="some name a class"):
        find_source(flat, lists=[f"large={lists}", str(lists)])


def test_picks_of_a_run_are_not_taken_for_annotations(flat: Path) -> None:
    """Somebody trains beside the data, and asks for a configuration once more."""
    lists, run = flat.parent / "lists", flat.parent / "a_run"
    for folder in (lists, run / "picks"):
        folder.mkdir(parents=True)
    for path in flat.glob("*.xml"):
        path.rename(lists / path.name)
    for path in lists.iterdir():
        (run / "picks" / path.name).write_bytes(path.read_bytes())
    (run / "picks" / "t3.xml").write_bytes((lists / "t0.xml").read_bytes())
    assert find_source(flat.parent).data.lists == (str(run / "picks"),)  # as long as nothing tells that it is a run
    for name in ("config.yaml", "versions.json", "metrics.jsonl"):
        (run / name).touch()
    assert find_source(flat.parent).data.lists == (str(lists),)


def test_several_lists_and_unknown_sizes_have_to_be_said(flat: Path) -> None:
    for path in flat.glob("*.xml"):
        path.unlink()
    for folder in ("a", "b"):
        (flat.parent / folder).mkdir()
        (flat.parent / folder / "all.csv").write_text("x,y,z,tomogram\n10,10,10,t0\n20,20,20,t1\n")
    with pytest.raises(InputError, match=r"several lists: a/all\.csv, b/all\.csv.*CLASS=PATH"):
        find_source(flat.parent)
    by_class = find_source(flat.parent, lists=[f"large={flat.parent}/a/all.csv", f"small={flat.parent}/b/all.csv"])
    assert by_class.data.lists == {"large": f"{flat.parent}/a/all.csv", "small": f"{flat.parent}/b/all.csv"}
    assert names(by_class) == {"t0": True, "t1": True, "t2": False, "t3": False}
    unsized = flat.parent / "unsized"
    unsized.mkdir()
    tomogram(unsized / "t.mrc", 0, voxel_size=None)
    with pytest.raises(InputError, match=r"no header states the voxel size.*--voxel-size"):
        find_source(unsized)
    with pytest.raises(InputError, match="no such folder"):
        find_source(flat / "none")
    (flat.parent / "empty").mkdir()
    with pytest.raises(InputError, match="no tomogram in it"):
        find_source(flat.parent / "empty")


def test_radii_are_seen_and_the_best_fitting_list_is_proposed(flat: Path) -> None:
    source = find_source(flat)
    observations, classes = observed(source.tomograms, source.data, ["large", "small"], VOXEL)
    species, scores = with_radii(observations, classes, {}, VOXEL)
    for entry in species:
        assert entry.radius_angstrom == pytest.approx(VOXEL * RADII[entry.name], rel=0.35), entry
        assert "guess" in entry.how
    assert np.argmax(scores) == 1
    assert scores[3] == 0
    given, _ = with_radii(observations, classes, {"large": 71.0, "small": 36.0}, VOXEL)
    assert [(entry.radius_angstrom, entry.how) for entry in given] == [(71.0, "as given"), (36.0, "as given")]
    proposed = propose_splits(observations, scores, 2)
    assert (proposed.splits.meta, proposed.splits.test, proposed.splits.train) == (("t1",), (), ())
    assert f"score {scores[1]:.1f}" in proposed.reason
    chosen = propose_splits(observations, scores, 2, meta=["t2"], test=["t0"])
    assert (chosen.splits.meta, chosen.splits.test, chosen.reason) == (("t2",), ("t0",), "as given")
    alone = propose_splits(observations[2:], scores[2:], 2)
    assert (alone.splits.train, alone.splits.meta, alone.splits.test) == (("t2",), (), ())
    assert dict(alone.split_of) == {"t2": "train", "t3": "test"}
    with pytest.raises(InputError, match="1 annotated tomogram, and none is left for train"):
        propose_splits(observations[2:], scores[2:], 2, meta=["t2"])
    five = []
    for number in range(5):
        files = replace(observations[0].tomogram, name=f"u{number}")
        five.append(replace(observations[0], tomogram=files))
    whole = propose_splits(five, [5, 4, 3, 2, 1], 2).splits
    assert (whole.meta, whole.val, whole.test) == (("u0",), (), ("u4",))


def test_scores_that_noise_gives_are_said_to_tell_nothing(flat: Path) -> None:
    """Lists that have nothing to do with the densities still have a best one, which is proposed with a caution."""
    source = find_source(flat)
    observations, _ = observed(source.tomograms, source.data, ["large", "small"], VOXEL)
    weak, clear = (propose_splits(observations[:3], scores, 2) for scores in ([0.3, 0.6, 0.1], [4.0, 5.0, 0.1]))
    assert weak.splits == clear.splits
    assert weak.reason.startswith("its list fits the density best (the doctor's score 0.6; next 0.3); a score below 3")
    assert "--meta NAME" in weak.reason
    assert clear.reason == "its list fits the density best (the doctor's score 5.0; next 4.0)"
    rng = np.random.default_rng(5)
    for path in flat.glob("*.mrc"):
        write_mrc(path, rng.normal(size=SHAPE).astype(np.float32), VOXEL)
    text = propose(flat, flat / "my.yaml", species="large:70,small:35").text
    assert "does not tell which list is the best" in " ".join(text.replace("#", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meta", "t9"], r"--meta: no tomogram 't9'; there are t0, t1, t2, t3"),
        (["--test", "x*"], r"--test: no tomogram 'x\*'; there are"),
        (["--meta", "t1", "--test", "t1"], r"t1 is in --meta and in --test; name it in one of them"),
        (["--meta", "t1", "--val", "rec_t1.mrc"], r"t1 is in --meta and in --val"),
        (["--meta", "t3"], r"--meta: t3 has no particles; those with particles: t0, t1, t2"),
        (["--val", "t3"], r"--val: t3 has no particles"),
    ],
)
def test_wrong_names_of_splits_are_refused(
    flat: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = flat.parent / "my.yaml"
    assert call(init.main, [str(flat), "--species", "large:70,small:35", "--out", str(out), *arguments]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not out.exists()


def test_patterns_and_name_patterns_choose_the_splits_that_the_file_has(
    flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names as a program leaves them, of which a pattern catches what the user means."""
    for path in list(flat.iterdir()):
        path.rename(flat / f"lam7_TS_0{path.stem[1]}_v3_denoised{path.suffix}")
    out = flat.parent / "my.yaml"
    common = [
        str(flat),
        "--species",
        "large:70,small:35",
        "--name-pattern",
        "TS_[0-9]+",
        "--out",
        str(out),
        "--overwrite",
    ]

    def splits(*arguments: str) -> tuple[dict[str, str], str]:
        """The split of each tomogram that the file puts into one, and what is shown, which has to agree."""
        assert call(init.main, [*common, *arguments]) == 0
        config, shown = load_config(out), capsys.readouterr().out
        found = dataset(config.data.dir or "", config.data)
        for split, files in found.items():
            assert (f"{split}: {', '.join(each.name for each in files)}" in shown) == bool(files), (split, shown)
            assert (f"{len(files)} {split}" in out.read_text()) == bool(files), split
        return {files.name[5:10]: split for split in found for files in found[split]}, shown

    by_name, _ = splits("--meta", "TS_02")
    assert by_name == {"TS_00": "train", "TS_01": "train", "TS_02": "meta", "TS_03": "test"}
    by_pattern, shown = splits("--meta", "TS_*1", "--test", "*TS_00*")
    assert by_pattern == {"TS_00": "test", "TS_01": "meta", "TS_02": "train"}
    assert "left out, without a list and not named for test: lam7_TS_03_v3_denoised" in shown
    proposed, _ = splits()
    assert proposed == {"TS_00": "train", "TS_01": "meta", "TS_02": "train", "TS_03": "test"}
    assert load_config(out).data.splits.meta == ("TS_01",)


def test_a_copick_project_gets_the_names_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its section takes no patterns and no short names."""
    folder, _ = copick_project(tmp_path)
    monkeypatch.chdir(folder)
    assert call(init.main, [".", "--meta", "*_02", "--out", "my.yaml"]) == 0
    section = yaml.safe_load(Path("my.yaml").read_text())["data"]["copick"]
    assert {split: section.get(split) for split in ("train", "meta", "test")} == {
        "train": ["TS_01"],
        "meta": ["TS_02"],
        "test": None,
    }
    assert "(names of runs)" in Path("my.yaml").read_text().replace("\n  # ", " ")
    assert call(init.main, [".", "--meta", "TS_02", "--test", "TS_9", "--out", "other.yaml"]) == 2


def test_species_come_from_labels_or_names(flat: Path) -> None:
    source = find_source(flat)
    assert observed(source.tomograms, source.data, [], VOXEL)[1] == ["class_1", "class_2"]
    with pytest.raises(InputError, match="the lists hold label 2 too"):
        observed(source.tomograms, source.data, ["large"], VOXEL)
    for path in flat.glob("*.xml"):
        path.unlink()
    for name in ("t0", "t1"):
        (flat / f"{name}.csv").write_text("x,y,z,class_name\n10,10,10,p97\n20,20,20,hsp\n")
    source = find_source(flat)
    observations, classes = observed(source.tomograms, source.data, [], VOXEL)
    assert classes == ["hsp", "p97"]
    assert [o.particles.labels.tolist() for o in observations[:2] if o.particles] == [[2, 1], [2, 1]]
    assert parsed("ribosome:150, p97") == {"ribosome": 150.0, "p97": None}
    for wrong in ("ribosome:big", "ribosome:-3", "a:1,a:2"):
        with pytest.raises(InputError, match="is not NAME:RADIUS"):
            parsed(wrong)


@given(st.lists(st.floats(2.0, 30.0), min_size=1, max_size=3), st.integers(16, 300))
def test_sizes_suit_radii_and_tomograms(radii: list[float], thinnest: int) -> None:
    section = patches(radii, [(thinnest, 400, 400)])
    assert section["size"] % 16 == 0
    assert section["size"] <= thinnest
    assert section["shift_vox"] < section["size"] // 2
    tiles = inference(radii, section["size"])
    assert tiles["overlap_vox"] == overlap_of_tiles(max(radii), tiles["tile"]) < tiles["tile"]


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
FLOW = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.text(min_size=1, max_size=3), PLAIN, max_size=2)
VALUES = FLOW | st.lists(st.dictionaries(st.text(min_size=1, max_size=3), FLOW, min_size=1, max_size=2), max_size=2)


@example({"a": {"x": "ends of lines \x85 \u2028 \u2029 in YAML"}})
@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), VALUES, min_size=1)))
def test_what_is_written_is_what_yaml_reads(values: dict[str, dict[str, object]]) -> None:
    text = commented_yaml(values, {"a": "one: two # three", "a.x": "why " * 60}, ["head"])
    assert (yaml.safe_load(text) or {}) == values
    assert all(len(line) <= 118 for line in text.splitlines() if "why" in line)


def test_the_command_writes_what_the_doctor_accepts(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(flat.parent)
    arguments = [str(flat), "--species", "large:70,small:35", "--out", "my.yaml", "--train.steps", "7"]
    assert call(init.main, arguments) == 0
    config = load_config("my.yaml")
    assert [entry.radius_vox for entry in config.data.species] == [7.0, 3.5]
    assert (config.train.steps, config.data.splits.meta, config.patches.size) == (7, ("t1",), 32)
    found = dataset(config.data.dir or "", config.data)
    assert {split: [files.name for files in found[split]] for split in found} == {
        "train": ["t0", "t2"],
        "meta": ["t1"],
        "val": [],
        "test": ["t3"],
    }
    text = Path("my.yaml").read_text()
    for words in (
        "radii in Å",
        "the doctor's score",
        "To change it",
        "on this machine",
        "robpicker train --config my.yaml",
    ):
        assert words in text.replace("\n  # ", " ").replace("\n# ", " ")
    assert diagnose(config.data.dir or "", config, resources_too=False).count("error") == 0
    assert call(init.main, arguments) == 2  # it exists
    assert Path("my.yaml").read_text() == text


def test_folders_keep_their_splits(flat: Path) -> None:
    data = flat.parent / "DATA"
    for split, name in (("train", "t0"), ("meta", "t1"), ("test", "t3")):
        (data / split).mkdir(parents=True)
        for path in flat.glob(f"{name}.*"):
            path.rename(data / split / path.name)
    source = find_source(data)
    assert not source.is_flat
    assert [(files.split, files.name) for files in source.tomograms] == [
        ("train", "t0"),
        ("meta", "t1"),
        ("test", "t3"),
    ]
    with pytest.raises(
        InputError, match=r"its folders train/, meta/ … say what each tomogram is for.*leave out --meta"
    ):
        propose(data, data / "my.yaml", meta=["t0"])
    assert isinstance(source.data, DataConfig)
    assert json.dumps(source.remarks) == "{}"
