"""`train --replay`: a record run again gives the same bits, and what differs is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from robpicker_jax.commands import train
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.replay import first_difference


def test_a_record_is_run_again_and_equal_bit_by_bit(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "run"
    shutil.copytree(tiny_run, record)
    assert call(train.main, ["--replay", str(record)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"replay of {record}: 6 rows of metrics, evaluation, picks and model are equal, bit by bit" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_first_difference_is_said(tiny_run: Path, tmp_path: Path) -> None:
    record, again = tmp_path / "record", tmp_path / "again"
    shutil.copytree(tiny_run, record)
    shutil.copytree(tiny_run, again)
    assert first_difference(record, again) is None
    metrics, picks = again / "metrics.jsonl", again / "picks" / "test_000.xml"
    whole, list_ = metrics.read_text(), picks.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    for row in rows:
        if row["kind"] == "train":
            row["patches_per_second"] *= 2  # the clock's
        if row["step"] == 3:
            row["inner_loss"] += 1e-15
            value = row["inner_loss"]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = first_difference(record, again)
    assert found is not None
    assert found.startswith("step 3, train: inner_loss was ")
    assert found.endswith(f"is {value!r} now")
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] < 3))
    found = first_difference(record, again)
    assert found == "step 3, train: the replay has no such row"
    metrics.write_text(whole)
    picks.write_bytes(list_.replace(b"<objlist", b"<objlist ", 1))
    assert first_difference(record, again) == "picks/test_000.xml differs"
    picks.write_bytes(list_)
    (record / "metrics.jsonl").write_text("".join(line + "\n" for line in whole.splitlines()[:2]))
    assert first_difference(record, again) is None  # a record that was stopped counts as far as it goes


def test_what_cannot_be_replayed_is_refused(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, named in (
        (["--replay", str(tmp_path)], "holds no run"),
        (["--replay", str(tiny_run), "--train.steps", "7"], "--train.steps has no part in a replay"),
        (["--replay", str(tiny_run), "--workdir", str(tiny_run)], "is the record itself"),
    ):
        assert call(train.main, arguments) == 2
        assert named in capsys.readouterr().err
