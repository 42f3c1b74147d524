"""Bad data and settings: exit code 2 and one line that says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from robpicker_jax.commands import pick, train
from robpicker_jax.commands.cli import call


def replace_text(path: Path, old: str, new: str) -> None:
    """Replace text in a file, all of it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def spoil(folder: Path, fault: str) -> str:
    """Plant a fault in a data set; returns what the message must name."""
    volume, objects = folder / "train" / "train_000.mrc", folder / "train" / "train_000_objl.xml"
    match fault:
        case "missing folder":
            shutil.rmtree(folder)
            return str(folder)
        case "missing split":
            shutil.rmtree(folder / "meta")
            return "meta"
        case "empty list":
            objects.write_text("<objlist/>", encoding="utf-8")
            return "no ribosome in train"
        case "no annotations":
            objects.unlink()
            return "train_000"
        case "coordinates outside":
            replace_text(objects, 'x="', 'x="9')
            return "outside"
        case "unknown class":
            replace_text(objects, 'class_label="1"', 'class_label="7"')
            return "class label 7"
        case "mismatched voxel size":
            with mrcfile.open(volume, mode="r+") as file:
                file.voxel_size = 7.84
            return "7.84"
        case "truncated":
            volume.write_bytes(volume.read_bytes()[:-1000])
            return "train_000.mrc"
        case "NaN voxels":
            with mrcfile.open(volume, mode="r+") as file:
                file.data[3, 4, 5] = np.nan
            return "train_000.mrc"
        case "small volume":
            with mrcfile.open(volume) as file:
                data, size = file.data[:12].copy(), file.voxel_size.copy()
            with mrcfile.new(volume, data, overwrite=True) as file:
                file.voxel_size = size
            return "smaller than a patch"
    raise AssertionError(fault)


FAULTS = [
    "missing folder",
    "missing split",
    "empty list",
    "no annotations",
    "coordinates outside",
    "unknown class",
    "mismatched voxel size",
    "truncated",
    "NaN voxels",
    "small volume",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_gives_exit_2_and_one_line(
    fault: str, tiny_config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    named = spoil(folder, fault)
    arguments = ["--config", str(tiny_config), "--data.dir", str(folder), "--workdir", str(tmp_path / "run")]
    assert call(train.main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert named in error


def test_applying_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(pick.main, ["--workdir", str(tmp_path), "--out", str(tmp_path), "a.mrc"]) == 2
    assert "no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--patches.size=18", "patches.size"),
        ("--inference.tile=34", "inference.tile"),
        ("--train.hypergradient=unroled", "unrolled"),
        ("--parallel.devices=64", "parallel.devices"),
        ("--train.inner.name=lion", "hypergradient would be zero"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    override: str, named: str, tiny_config: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tight = "--model.widths=[4,4,4]"
    arguments = [
        "--config",
        str(tiny_config),
        "--data.dir",
        str(tiny_data),
        "--workdir",
        str(tmp_path),
        override,
        tight,
    ]
    assert call(train.main, arguments) == 2
    assert named in capsys.readouterr().err
