"""`train --folds`: how tomograms are divided, what a fold's data set holds, resuming, and the summary."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.cross_validation import SUMMARY, cross_validate, summary
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets import dataset
from robpicker_jax.datasets.folds import assign_folds
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.tiny import merged, write_tiny


@settings(max_examples=100, deadline=None)
@given(number=st.integers(3, 40), count=st.integers(2, 8), seed=st.integers(0, 5))
def test_every_tomogram_is_tested_once_by_a_model_that_never_saw_it(number: int, count: int, seed: int) -> None:
    names = [f"t{index:02d}" for index in range(number)]
    if number < count or number - -(-number // count) < 2:
        with pytest.raises(InputError, match="too few"):
            assign_folds(names, count, seed)
        return
    folds = assign_folds(names, count, seed)
    assert folds == assign_folds(names[::-1], count, seed)
    assert sorted(name for fold in folds for name in fold.test) == names
    for fold in folds:
        assert sorted((*fold.train, *fold.meta, *fold.test)) == names
        assert len(fold.test) in (number // count, -(-number // count))
        rest = number - len(fold.test)
        assert len(fold.meta) == max(1, round(rest / 8))
        assert fold.train


def test_the_papers_ten_tomograms() -> None:
    """Five folds of ten tomograms: two tested, seven trained on, one of meta, another one in each fold."""
    folds = assign_folds([str(number) for number in range(10)], 5)
    assert {(len(fold.train), len(fold.meta), len(fold.test)) for fold in folds} == {(7, 1, 2)}
    assert len({fold.meta for fold in folds}) > 2


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A data set of six tomograms in three splits; the training ones have their clean lists beside the faulty ones."""
    folder = tmp_path / "data"
    rows = '<objlist><object class_label="1" x="{x}" y="4" z="4"/></objlist>'
    for split, names in {"train": "abcd", "meta": "e", "test": "f"}.items():
        (folder / split).mkdir(parents=True)
        for name in names:
            write_mrc(folder / split / f"{name}.mrc", np.zeros((8, 8, 8), np.float32), 10.0)
            (folder / split / f"{name}_objl.xml").write_text(rows.format(x=1))
            if split == "train":
                (folder / split / f"{name}_truth_objl.xml").write_text(rows.format(x=5))
    write_mrc(folder / "test" / "bare.mrc", np.zeros((8, 8, 8), np.float32), 10.0)
    overrides = [f"data.dir={folder}", 'data.species=[{"name": "a", "radius_vox": 2}]', "data.meta_labels=sphere"]
    return load_config(None, overrides)


def evaluation(number: int) -> dict[str, Any]:
    row = {"name": "a", "f1": number / 10, "average_precision": None, "true": 10, "picked": 8, "true_positives": number}
    return {"macro": {"f1": number / 10}, "classes": [row]}


def test_folds_are_run_resumed_and_summarised(config: Config, tmp_path: Path) -> None:
    """A main job that is stopped now and then; what stays in the end is what an undisturbed one leaves."""
    summaries = []
    for name, stops in (("whole", set()), ("stopped", {2, 4})):
        calls: list[Path] = []

        def run(fold: Config, workdir: Path, calls: list[Path] = calls, stops: set[int] = stops) -> None:
            calls.append(workdir)
            found = dataset(Path(fold.data.dir or ""), fold.data)
            assert len(found["test"]) == 2
            assert len(found["train"]) == 3
            assert len(found["meta"]) == 1
            for split in ("meta", "test"):  # clean lists, wherever the tomogram came from
                for files in found[split]:
                    text = files.annotation_path.read_text()
                    assert ('x="5"' in text) == (files.name in "abcd")
            for files in found["train"]:
                assert 'x="1"' in files.annotation_path.read_text()
            if len(calls) in stops:
                raise KeyboardInterrupt
            if not (workdir / "results.json").exists():
                workdir.mkdir(parents=True, exist_ok=True)
                number = int(workdir.name[-1])
                (workdir / "evaluation.json").write_text(json.dumps(evaluation(number)))
                (workdir / "results.json").write_text("{}")

        workdir = tmp_path / name
        for _ in range(4):
            try:
                cross_validate(config, workdir, 3, run)
                break
            except KeyboardInterrupt:
                assert not (workdir / SUMMARY).exists()
        summaries.append((workdir / SUMMARY).read_bytes())
        tested = json.loads((workdir / "folds.json").read_text())["folds"]
        assert sorted(name for fold in tested for name in fold["test"]) == list("abcdef")
    assert summaries[0] == summaries[1]
    content = json.loads(summaries[0])
    assert content["macro"] == {"mean": pytest.approx(0.2), "sd": pytest.approx(0.1)}
    assert content["species"]["a"]["pooled"] == {
        "true": 30, "picked": 24, "true_positives": 6, "f1": pytest.approx(12 / 54),
    }  # fmt: skip


def test_one_fold_alone_and_other_folds_in_the_same_folder(config: Config, tmp_path: Path) -> None:
    ran = []
    cross_validate(config, tmp_path / "w", 3, lambda _, workdir: ran.append(workdir.name), only=2)
    assert ran == ["fold_2"]
    assert not (tmp_path / "w" / SUMMARY).exists()
    with pytest.raises(InputError, match="divided otherwise"):
        cross_validate(config, tmp_path / "w", 2, lambda *_: None)
    with pytest.raises(InputError, match="no fold 4 of 3"):
        cross_validate(config, tmp_path / "w", 3, lambda *_: None, only=4)
    link = next((tmp_path / "w" / "fold_1_data" / "train").glob("*.mrc"))
    link.unlink()
    link.write_bytes(b"")
    with pytest.raises(InputError, match="is not the link"):
        cross_validate(config, tmp_path / "w", 3, lambda *_: None)


def test_the_summary_by_numpy() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(5)
    found = summary(["a"], [evaluation(0) | {"macro": {"f1": float(score)}} for score in scores])
    assert found["macro"]["mean"] == pytest.approx(scores.mean())
    assert found["macro"]["sd"] == pytest.approx(np.sqrt(((scores - scores.mean()) ** 2).sum() / 4))
    assert summary(["a"], [evaluation(3) | {"macro": None}])["macro"] == {"mean": None, "sd": None}


def test_a_fold_without_folds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(train.main, ["--fold", "2"]) == 2
    assert "--folds" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_random_and_resumed_the_summary_is_the_same(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.yaml")
    import yaml

    small = merged(yaml.safe_load(path.read_text()), {"simulation": {"train": 3}, "train": {"variant": "supervised"}})
    path.write_text(yaml.safe_dump(small))
    command = [sys.executable, "-m", "robpicker_jax.train", "--config", str(path), "--folds", "2", "--workdir"]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, cwd=tmp_path)
    rng, kills, began = np.random.default_rng(), 0, time.monotonic()
    while time.monotonic() - began < 900:
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, cwd=tmp_path)
        try:
            code = process.wait(timeout=rng.uniform(8, 40) * (1 + kills))
            assert code == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert (tmp_path / "killed" / SUMMARY).read_bytes() == (tmp_path / "whole" / SUMMARY).read_bytes()
