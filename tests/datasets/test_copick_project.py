"""copick projects (fault B3): runs as tomograms, objects as species, picks as lists, and picks into the overlay.

The project is made, and what was written is read back, by the copick library itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.commands import evaluate, pick
from robpicker_jax.commands.cli import call
from robpicker_jax.config import CopickConfig, DataConfig, load_config
from robpicker_jax.datasets import dataset, load_particles, open_tomogram
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.picking.picker import PICKERS
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.commands.test_batches import Brightest
from tests.datasets.copick_cases import POSITIONS, SHAPE, add, make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three runs with a tomogram each; ann picked both objects in all of them, ben one object in the first."""
    return make_project(tmp_path)


def test_opening_a_project_leaves_the_logging_of_others_alone(project: Path) -> None:
    code = (
        "import logging, sys\n"
        "from robpicker_jax.datasets.copick_project import open_project\n"
        "assert len(open_project(sys.argv[1]).runs) == 3\n"
        "logging.getLogger('jax').info('a remark')\n"
        "print(logging.getLogger().handlers, logging.getLogger().level)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(project)], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 30\n"


def test_a_log_file_that_was_open_before_a_project_still_takes_lines(project: Path, tmp_path: Path) -> None:
    code = (
        "import logging, sys\n"
        "logging.basicConfig(filename=sys.argv[2], filemode='w')\n"
        "from robpicker_jax.datasets.copick_project import open_project\n"
        "open_project(sys.argv[1])\n"
        "logging.getLogger('lab').warning('after the project')\n"
    )
    log = tmp_path / "lab.log"
    subprocess.run([sys.executable, "-c", code, str(project), str(log)], capture_output=True, text=True, check=True)
    assert "after the project" in log.read_text()


def configuration(project: Path, folder: Path, **section: Any) -> DataConfig:
    chosen = {"train": ["TS_1"], "meta": ["TS_2"], "user": "ann", "voxel_spacing_angstrom": 10.0, **section}
    data = {"dir": str(project), "meta_labels": "sphere", "copick": chosen}
    (folder / "c.yaml").write_text(json.dumps({"data": data}))
    return load_config(folder / "c.yaml", ["patches.size=8", "patches.shift_vox=2", "inference.overlap_vox=2"]).data


def test_b3_runs_objects_and_picks_are_a_data_set(project: Path, tmp_path: Path) -> None:
    data = configuration(project, tmp_path)
    assert [(entry.name, entry.radius_vox) for entry in data.species] == [("apo-ferritin", 6.0), ("ribosome", 15.0)]
    found = dataset(project, data)
    assert {split: [files.name for files in found[split]] for split in found} == {
        "train": ["TS_1"],
        "meta": ["TS_2"],
        "val": [],
        "test": ["TS_3"],
    }
    particles = load_particles(found["train"][0], data, SHAPE, 10.0)
    np.testing.assert_allclose(particles.positions_vox, [[1, 2, 3], [4, 5, 6], [7, 2, 1]])
    assert particles.labels.tolist() == [1, 2, 2]
    with open_tomogram(found["meta"][0], data) as opened:
        assert opened.shape_zyx == SHAPE
        assert opened.voxel_size_angstrom == pytest.approx(10.0)
    config = load_config(tmp_path / "c.yaml", ["patches.size=8", "patches.shift_vox=2", "inference.overlap_vox=2"])
    codes = set(diagnose(project, config, resources_too=False).codes)
    assert not {"layout", "no_annotations", "unreadable_annotations", "class_unknown", "unreadable_volume"} & codes


def test_b3_what_is_open_is_refused_and_listed(project: Path, tmp_path: Path) -> None:
    for section, message in [
        ({"user": None}, "TS_1.* several picks of 'ribosome': user ann session 1, user ben session 1"),
        ({"train": ["TS_9"]}, "no run 'TS_9'; its runs: TS_1, TS_2, TS_3"),
        ({"val": ["TS_1"]}, "run 'TS_1' is in train and val"),
        ({"tomo_type": "denoised"}, "run 'TS_1' has no tomogram of type 'denoised' at 10 Å"),
    ]:
        with pytest.raises(InputError, match=message):
            dataset(project, configuration(project, tmp_path, **section))
    with pytest.raises(InputError, match="the voxel size is not given"):
        configuration(project, tmp_path, voxel_spacing_angstrom=None)


def test_b3_picks_go_into_the_overlay(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import copick

    picker = Brightest()
    picker.class_names = ("Apo Ferritin",)  # type: ignore[misc,assignment]
    monkeypatch.setitem(PICKERS, "brightest", lambda source, overrides: picker)
    arguments = ["--picker", "brightest", "--workdir", str(tmp_path), "--out", str(project), str(project)]
    assert call(pick.main, [*arguments, "--format-option", "session_id=7"]) == 0
    assert picker.seen == ["TS_1", "TS_2", "TS_3"]
    assert call(pick.main, [*arguments, "--format-option", "session_id=7"]) == 0
    assert picker.seen == ["TS_1", "TS_2", "TS_3"]  # finished
    root = copick.from_file(str(project))
    for run in root.runs:
        (picks,) = run.get_picks(user_id="robpicker", session_id="7")
        assert picks.pickable_object_name == "apo-ferritin"
        points, _ = picks.numpy()
        assert points.shape == (3, 3)
        assert not picks.trust_orientation
        assert {picks.user_id for picks in run.picks} >= {"ann", "robpicker"}
    picker.class_names = ("nothing",)  # type: ignore[misc,assignment]
    capsys.readouterr()
    assert call(pick.main, arguments) == 2
    assert "has no object for nothing; its objects: apo-ferritin, ribosome" in capsys.readouterr().err
    assert call(pick.main, [*arguments, "--format", "xml"]) == 2


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["TS_2"], ["TS_2"]),
        (["TS_3", "TS_[12]"], ["TS_1", "TS_2", "TS_3"]),
        (["*_1", "TS_1"], ["TS_1"]),
        (["TS_2", "TS_9"], "copick_config.json: no run 'TS_9'; its runs: TS_1, TS_2, TS_3"),
        (["ts_2"], "no run 'ts_2'"),
    ],
)
def test_b3_some_runs_are_picked(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: list[str],
    expected: list[str] | str,
) -> None:
    picker = Brightest()
    monkeypatch.setitem(PICKERS, "brightest", lambda source, overrides: picker)
    arguments = ["--picker", "brightest", "--workdir", str(tmp_path), "--out", str(tmp_path / "out")]
    arguments += [text for name in runs for text in ("--run", name)]
    code = call(pick.main, [*arguments, str(project)])
    if isinstance(expected, str):
        assert code == 2
        assert expected in capsys.readouterr().err
        return
    assert (code, picker.seen) == (0, expected)
    volume = project.parent / "some.mrc"
    write_mrc(volume, np.zeros(SHAPE, np.float32), 10.0)
    assert call(pick.main, [*arguments, str(volume)]) == 2
    assert "only copick projects have runs" in capsys.readouterr().err


class Several(Brightest):
    """Three picks, one of each of three species, the last two of which the project does not know by their names."""

    class_names = ("Ribosome", "ferritin", "proteasome")  # type: ignore[assignment]

    def pick(self, tomogram: Any, on_tiles: object = None, *, mask: object = None) -> Particles:
        found = super().pick(tomogram, on_tiles, mask=mask)
        return found.with_(labels=[1, 2, 3], class_names=list(self.class_names), scores=[0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    ("further", "expected", "said"),
    [
        ([], {"ribosome": [0.9]}, "has no object for ferritin, proteasome, whose picks are not written"),
        (["--species", "ferritin=Apo_Ferritin"], {"apo-ferritin": [0.8]}, ""),
        (["--species", "ferritin=apo-ferritin,Ribosome"], {"apo-ferritin": [0.8], "ribosome": [0.9]}, ""),
        (["--species", "Ribosome", "--species", "proteasome=ribosome"], {"ribosome": [0.9, 0.7]}, ""),
        (["--species", "Ribosome", "--species", "ferritin"], None, "has no object for ferritin"),
        (["--species", "apo-ferritin"], None, "no species 'apo-ferritin'; the species are Ribosome, ferritin"),
    ],
)
def test_b3_species_go_to_the_objects_that_are_named(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    further: list[str],
    expected: dict[str, list[float]] | None,
    said: str,
) -> None:
    import copick

    monkeypatch.setitem(PICKERS, "several", lambda source, overrides: Several())
    arguments = ["--picker", "several", "--workdir", str(tmp_path), "--out", str(project), str(project), *further]
    assert call(pick.main, arguments) == (2 if expected is None else 0)
    shown = capsys.readouterr()
    assert said in (shown.err if expected is None else shown.out)
    assert said or "has no object" not in shown.out
    for run in copick.from_file(str(project)).runs:
        picks = run.get_picks(user_id="robpicker")
        found = {entry.pickable_object_name: [point.score for point in entry.points] for entry in picks}
        assert found == (expected or {})


@pytest.mark.fast
def test_b3_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "copick", None)
    path = tmp_path / "copick_config.json"
    path.write_text('{"pickable_objects": []}')
    assert is_project(path)
    with pytest.raises(InputError, match=r"needs the package copick; pip install 'robpicker-jax\[copick\]'"):
        dataset(path, DataConfig(copick=CopickConfig()))
    path.write_text('{"points": []}')
    assert not is_project(path)


@pytest.mark.fast
def test_b3_picks_that_were_written_as_copick_are_read_by_evaluation(tmp_path: Path) -> None:
    for name in ("TS_1", "TS_2"):
        picks = Particles([[1, 2, 3], [4, 5, 6]], [1, 2], class_names=["a", "b"], tomograms=[name] * 2)
        write_annotations(tmp_path / f"{name}_copick", picks, fmt="copick", voxel_size_angstrom=10.0)
    found = read_lists(tmp_path, class_names=["a", "b"])
    assert {name: sorted(particles.labels.tolist()) for name, particles in found.items()} == {
        "TS_1": [1, 2],
        "TS_2": [1, 2],
    }


def test_b3_evaluation_takes_a_project_as_truth_by_run(project: Path, tmp_path: Path) -> None:
    for name in ("TS_1", "TS_2"):
        positions = np.array(POSITIONS["ribosome"]) / 10
        write_annotations(
            tmp_path / "picks" / f"{name}.csv", Particles(positions, [1, 1], class_names=["ribosome"] * 2)
        )
    flags = ["--truth", str(project), "--picks", str(tmp_path / "picks"), "--rule", "tolerance", "--tolerance", "0.5"]
    flags += ["--json", str(tmp_path / "e.json"), "--missing-as-empty", "--overwrite"]
    assert call(evaluate.main, flags) == 2  # ann's or ben's ribosomes of TS_1?
    for chosen in (["--data.copick.user", "ann"], ["--truth-option", "user=ann"]):
        assert call(evaluate.main, [*flags, *chosen]) == 0
        found = json.loads((tmp_path / "e.json").read_text())
        hits = {row["name"]: row["true_positives"] for row in found["classes"]}
        assert hits == {"apo-ferritin": 0, "ribosome": 4}
        assert [row["name"] for row in found["tomograms"]] == ["TS_1", "TS_2", "TS_3"]


def test_what_a_review_left_goes_before_the_annotations_of_its_run(project: Path, tmp_path: Path) -> None:
    import copick

    root = copick.from_file(str(project))
    add(root.get_run("TS_3"), "ribosome", "review", [[20.0, 30.0, 40.0]])
    add(root.get_run("TS_1"), "ribosome", "robpicker", [[5.0, 5.0, 5.0]], session="0")
    splits = {"train": ["TS_1", "TS_3"], "meta": ["TS_2"]}
    data = configuration(project, tmp_path, **splits, prefer=["review/1"])
    lists = {files.name: files.class_lists for files in dataset(project, data)["train"]}
    assert [name for name, _ in lists["TS_1"]] == ["apo-ferritin", "ribosome"]  # ann's
    assert [(name, path.name) for name, path in lists["TS_3"]] == [("ribosome", "review_1_ribosome.json")]
    for prefer, users in ((["review/2"], ["ann", "ann"]), (["ben", "review"], ["ben", "review"]), ([], ["ann", "ann"])):
        found = dataset(project, configuration(project, tmp_path, **splits, prefer=prefer))["train"]
        assert [files.class_lists[-1][1].name.partition("_")[0] for files in found] == users


@pytest.mark.parametrize("split", ["train", "meta", "val"])
def test_a_run_that_the_chosen_user_did_not_pick_is_refused_with_those_who_did(
    project: Path, tmp_path: Path, split: str
) -> None:
    import copick

    root = copick.from_file(str(project))
    run = root.new_run("TS_4")
    volume = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    run.new_voxel_spacing(10.0).new_tomogram("wbp").from_numpy(volume)
    add(run, "ribosome", "review", [[20.0, 30.0, 40.0]])
    add(run, "ribosome", "robpicker", [[20.0, 30.0, 40.0]], session="0")
    section = {"train": ["TS_1"], "meta": ["TS_2"], "val": ["TS_3"]}
    section[split] = [*section[split], "TS_4"]
    message = (
        rf"data.copick.{split}: run 'TS_4' has no picks by ann; it has those of review/1, robpicker/0; "
        r"say whose count first, such as data.copick.prefer: \[review/1\]"
    )
    with pytest.raises(InputError, match=message):
        dataset(project, configuration(project, tmp_path, **section))
    found = dataset(project, configuration(project, tmp_path, **section, prefer=["review/1"]))
    assert [files.name for files in found[split]][-1] == "TS_4"
    section[split] = section[split][:-1]
    assert [files.name for files in dataset(project, configuration(project, tmp_path, **section))["test"]] == ["TS_4"]
