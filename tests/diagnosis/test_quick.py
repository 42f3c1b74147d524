"""The doctor's findings at the start of a training (field faults A20)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.config import load_config
from robpicker_jax.datasets import discover, survey
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.diagnosis.quick import quick_findings
from robpicker_jax.volumes import read_volume, write_mrc


def without(label: int, split: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / split / f"{split}_000_objl.xml"
        given = read_annotations(path)
        write_annotations(path, given.select(given.labels != label))

    return spoil


def one_particle(folder: Path) -> None:
    for split in ("train", "meta"):
        path = folder / split / f"{split}_000_objl.xml"
        given = read_annotations(path)
        write_annotations(path, given.select([int(np.flatnonzero(given.labels == label)[0]) for label in (1, 2)]))


def same_volume(folder: Path) -> None:
    """In another mode, under another name, with another list: still the same voxels."""
    volume = read_volume(folder / "train" / "train_000.mrc")
    write_mrc(folder / "test" / "again.mrc", 3 * volume.data.astype(np.float32), 22.0)


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_data, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(1, "train"), "no ribosome in train: it cannot be learnt"),
        (without(2, "meta"), "no apoferritin in meta: it gets no clean example"),
        (same_volume, "train/train_000 and test/again are the same volume"),
    ],
)
def test_a20_training_refuses_what_the_doctor_calls_an_error(
    spoil: Callable[[Path], None],
    said: str,
    data: Path,
    tiny_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(data)
    arguments = ["--config", str(tiny_config), "--data.dir", str(data), "--workdir", str(tmp_path / "run")]
    assert call(train.main, arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "--data.errors warn" in error
    codes = {
        f.code for f in diagnose(data, load_config(tiny_config), resources_too=False).findings if f.severity == "error"
    }
    assert codes & {"class_missing", "same_volume"}


def findings(data: Path, config_path: Path, **options: bool) -> dict[str, list[tuple[str, str]]]:
    config = load_config(config_path)
    found = survey(discover(data), config.data, config.patches.size)
    try:
        listed = quick_findings(found, patch=config.patches, picking=config.picking, **options)
    finally:
        found.close()
    result: dict[str, list[tuple[str, str]]] = {}
    for finding in listed:
        result.setdefault(finding.severity, []).append((finding.code, finding.what))
    return result


def test_a20_few_particles_are_warned_about(data: Path, tiny_config: Path) -> None:
    one_particle(data)
    found = findings(data, tiny_config)
    assert "error" not in found
    assert ("class_rare", "only 1 ribosome in train") in found["warning"]
    assert ("class_rare", "only 1 apoferritin in meta") in found["warning"]


def test_what_is_missing_in_meta_matters_only_where_meta_is_used(data: Path, tiny_config: Path) -> None:
    without(1, "meta")(data)
    assert [code for code, _ in findings(data, tiny_config)["error"]] == ["class_missing"]
    assert "error" not in findings(data, tiny_config, with_meta=False)


def test_warnings_are_printed_once_and_errors_may_be(
    data: Path, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(1, "meta")(data)
    arguments = ["--config", str(tiny_config), "--data.dir", str(data), "--workdir", str(tmp_path / "run")]
    assert call(train.main, [*arguments, "--data.errors", "warn", "--train.variant", "supervised"]) == 0
    assert capsys.readouterr().out.count("warning: no ribosome in meta") == 1
