"""A model as a file with its card: `export`, `card`, and commands that take it as `--model`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import robpicker_jax as rp
from robpicker_jax.commands import card, export, pick, segment, train
from robpicker_jax.commands.cli import call
from robpicker_jax.datasets.stamps import content_digest
from robpicker_jax.models import shipped
from robpicker_jax.picking import calibration
from robpicker_jax.training.export import load_trained_model


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's model, exported."""
    path = tmp_path_factory.mktemp("export") / "tiny.rpk"
    given = [str(tiny_run), str(path), "--licence", "CC-BY-4.0", "--note", "for tests", "--note", "22 Å"]
    assert call(export.main, given) == 0
    return path


def card_of(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert call(card.main, [str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_card_says_what_the_run_recorded(
    exported: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = card_of(exported, capsys)
    assert [(s["name"], s["radius_angstrom"], s["molecular_weight_kda"]) for s in found["species"]] == [
        ("ribosome", 110.0, 3300.0),
        ("apoferritin", 66.0, 480.0),
    ]
    kept = found["card"]["provenance"]
    assert (kept["licence"], kept["notes"], kept["simulated"]) == ("CC-BY-4.0", ["for tests", "22 Å"], True)
    assert kept["tomograms"] == {"train": 1, "meta": 1, "val": 0, "test": 1}
    evaluation = json.loads((tiny_run / "evaluation.json").read_text())
    assert [row["true"] for row in kept["test"]] == [3, 5]
    assert [row["f1"] for row in kept["test"]] == [row["f1"] for row in evaluation["classes"]]
    assert kept["macro_f1"] == evaluation["macro"]["f1"]
    inputs = json.loads((tiny_run / "inputs.json").read_text())
    assert kept["data_sha256"] == content_digest(inputs, ("train", "meta"))
    inputs["train"]["train_000.mrc"]["hash"] = "another"
    assert kept["data_sha256"] != content_digest(inputs, ("train", "meta"))


def test_the_card_in_words(exported: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call(card.main, [str(exported)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"species +ribosome: radius 110 Å, 3,300 kDa\n +apoferritin: radius 66 Å, 480 kDa", text)
    assert re.search(r"voxel size +22 Å, give or take 2 %", text)
    assert re.search(r"licence +CC-BY-4.0\nnotes +for tests\n +22 Å", text)
    assert call(card.main, [str(tiny_run / "model.rpk")]) == 0
    assert "not stated: this is a run's own file" in capsys.readouterr().out


def test_an_exported_model_picks_and_segments_as_its_run(exported: Path, tiny_run: Path, tmp_path: Path) -> None:
    volume = str(tiny_run / "data" / "test" / "test_000.mrc")
    for name, model in (("run", ["--workdir", str(tiny_run)]), ("file", ["--model", str(exported)])):
        assert call(pick.main, [*model, "--out", str(tmp_path / name), volume]) == 0
        assert call(segment.main, [*model, "--out", str(tmp_path / f"{name}_maps"), volume]) == 0
    for one, other in (("run", "file"), ("run_maps", "file_maps")):
        files = {path.name: path.read_bytes() for path in (tmp_path / one).glob("[!.]*")}
        assert files
        assert files == {path.name: path.read_bytes() for path in (tmp_path / other).glob("[!.]*")}


def test_thresholds_are_chosen_from_the_card_alone(
    exported: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [species["name"] for species in card_of(exported, capsys)["species"]]
    known = load_trained_model(exported).card.provenance
    assert known is not None
    whole = calibration.load(tiny_run).classes
    assert known.calibration == {name: calibration.condensed(entry) for name, entry in whole.items()}
    volume = str(tiny_run / "data" / "test" / "test_000.mrc")
    expected = call(
        pick.main, ["--workdir", str(tiny_run), "--out", str(tmp_path / "a"), "--precision", "0.999", volume]
    )
    said = capsys.readouterr().err
    assert (
        call(pick.main, ["--model", str(exported), "--out", str(tmp_path / "b"), "--precision", "0.999", volume]) == 2
    )
    assert expected == 2  # no number of picks shows that
    where = "the model's card: "
    assert capsys.readouterr().err == said.replace(f"{tiny_run / calibration.FILE}: ", where)
    assert any(name in said for name in names)


def test_a_file_is_exported_again_with_more_notes(exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "again.rpk"
    assert call(export.main, [str(exported), str(target), "--note", "third"]) == 0
    before, after = (load_trained_model(path).card.provenance for path in (exported, target))
    assert before is not None
    assert after is not None
    assert after.notes == (*before.notes, "third")
    assert (after.licence, after.test, after.data_sha256) == (before.licence, before.test, before.data_sha256)


def test_what_is_refused(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([str(exported), str(exported), "--overwrite"], "is an input"),
        ([str(tmp_path / "none.rpk"), str(tmp_path / "a.rpk")], "no such file"),
        ([str(tmp_path), str(tmp_path / "a.rpk")], "config.yaml"),
    ):
        capsys.readouterr()
        assert call(export.main, arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1
    taken = tmp_path / "taken.rpk"
    taken.write_text("mine")
    assert call(export.main, [str(exported), str(taken)]) == 2
    assert taken.read_text() == "mine"
    assert call(card.main, [str(taken)]) == 2
    assert "no trained model" in capsys.readouterr().err


def test_shipped_models_go_by_name(
    exported: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    volume = str(tiny_run / "data" / "test" / "test_000.mrc")
    arguments = ["--model", "general", "--out", str(tmp_path / "out"), volume]
    assert call(pick.main, arguments) == 2
    assert "general: no such file, run or shipped model" in capsys.readouterr().err
    (folder / "general.rpk").write_bytes(exported.read_bytes())
    assert call(pick.main, arguments) == 0
    assert rp.load_model("general").card == load_trained_model(exported).card
    assert call(pick.main, ["--model", "genera", "--out", str(tmp_path / "out2"), volume]) == 2
    assert "models that ship with this version: general" in capsys.readouterr().err
    options = train._configuration(train_options("general"), [])
    assert options.train.init_from == "general"  # a name, which means the same on every machine
    assert load_trained_model(options.train.init_from).card == load_trained_model(exported).card


def train_options(init_from: str) -> Any:
    """The parsed options of `train --init-from`."""
    import argparse

    return argparse.Namespace(config=None, init_from=init_from)
