"""One annotated tomogram: `init` proposes a training without meta networks, which needs no second one, and it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.commands import init, pick, train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import load_config
from robpicker_jax.datasets import dataset, survey
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.system.errors import InputError

SMALL = [
    "--patches.size=16",
    "--patches.shift_vox=2",
    "--model.widths=[4,6]",
    "--model.convs_per_block=1",
    "--model.bottleneck_convs=1",
    "--train.steps=4",
    "--train.batch_size=2",
    "--train.validate_every=4",
    "--train.checkpoint_every=4",
    "--inference.tile=32",
    "--inference.overlap_vox=8",
]


@pytest.fixture
def folder(tiny_data: Path, tmp_path: Path) -> Path:
    """A flat folder with one annotated tomogram and one without a list."""
    home = tmp_path / "mine"
    home.mkdir()
    shutil.copy(tiny_data / "train" / "train_000.mrc", home / "TS_01.mrc")
    shutil.copy(tiny_data / "test" / "test_000.mrc", home / "TS_02.mrc")
    write_annotations(home / "TS_01.xml", read_annotations(tiny_data / "train" / "train_000_objl.xml"))
    return home


def proposed(folder: Path, *further: str) -> Path:
    path = folder.parent / "my.yaml"
    species = "ribosome:132,apoferritin:66"
    arguments = [str(folder), "--species", species, "--out", str(path), "--overwrite", *SMALL, *further]
    assert call(init.main, arguments) == 0
    return path


def test_init_proposes_a_training_without_meta_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = proposed(folder)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values["train"]["variant"] == "supervised"
    assert not {"correction", "reweighting", "corruption", "meta_warmup_steps"} & values["train"].keys()
    assert values["data"]["splits"] == {"train": ["TS_01"]}
    assert "no meta tomogram by which a label correction could learn" in path.read_text(encoding="utf-8")
    assert "variant supervised" in capsys.readouterr().out
    config = load_config(path)
    assert "split_missing" not in diagnose(folder, config, resources_too=False).codes
    found = dataset(folder, config.data)
    with pytest.raises(InputError, match=r"no tomogram in meta/.*supervised needs none"):
        survey(found, config.data, config.patches.size)
    survey(found, config.data, config.patches.size, needs_meta=config.train.uses_meta_tomograms).close()
    for flag in (
        "train.variant=robpicker",
        "train.meta_held_out=auto",
        "train.fine_tune_steps=1",
        "train.meta_share=0.5",
    ):
        assert load_config(path, [flag]).train.uses_meta_tomograms, flag


def test_the_training_ends_and_its_model_picks(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = proposed(folder), tmp_path / "RUN"
    arguments = ["--config", str(path), "--workdir", str(run)]
    assert call(train.main, [*arguments, "--picking.thresholds", "best"]) == 2
    assert "chosen on meta and validation tomograms" in capsys.readouterr().err
    assert call(train.main, arguments) == 0
    said = capsys.readouterr().out
    assert "tells nothing of new ones" in " ".join(said.split())
    assert (run / "picks" / "TS_02.xml").is_file()
    assert not (run / "calibration.json").exists()
    assert "on the training tomograms themselves" in (run / "report" / "index.html").read_text(encoding="utf-8")
    validations = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(row["kind"] == "validation" for row in validations)
    volume = str(folder / "TS_02.mrc")
    assert call(pick.main, ["--workdir", str(run), "--out", str(tmp_path / "P"), volume, "--precision", "0.9"]) == 2
    assert "with meta or validation tomograms" in capsys.readouterr().err

    (folder / "TS_02.mrc").unlink()  # nothing to pick: the training alone, begun with the first model
    tuned = [
        "--init-from",
        str(run),
        "--train.steps",
        "2",
        "--patches.input",
        "device",
        "--data.invert_contrast",
        "true",
    ]
    assert call(train.main, [*arguments[:2], "--workdir", str(tmp_path / "B"), *tuned]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the model was trained on other data than these: the contrast seems to be inverted" in said
    assert "there is no test tomogram: nothing to pick or evaluate" in said
    assert "no test tomogram has annotations" not in said
    assert "picks:" not in said
    assert not (tmp_path / "B" / "picks").exists()
