"""Nothing that exists is overwritten unasked, and no input at all (fault E1), by any command that writes."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from robpicker_jax.annotations import read_annotations
from robpicker_jax.commands.cli import call
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.outputs import check_outputs

HAND_MADE = b"hours of work"


@dataclass(frozen=True)
class Case:
    """One command that writes.

    Attributes:
        command: its arguments.
        writes: a file that it writes.
        reads: a file that it reads, or None where it cannot write onto one.
        onto: the arguments that would write onto that file.
    """

    command: list[str]
    writes: Path
    reads: Path | None = None
    onto: list[str] | None = None


def _pick(run: Path, folder: Path) -> Case:
    shutil.copy(run / "data" / "test" / "test_000.mrc", folder / "t.mrc")
    common = ["pick", "--workdir", str(run), str(folder / "t.mrc"), "--out"]
    return Case([*common, str(folder)], folder / "t.xml")


def _pick_together(run: Path, folder: Path) -> Case:
    case = _pick(run, folder)
    return Case([*case.command, "--together", "--format", "csv"], folder / "picks.csv")


def _segment(run: Path, folder: Path) -> Case:
    volume = folder / "t.mrc"
    shutil.copy(run / "data" / "test" / "test_000.mrc", volume)
    input_ = folder / "t_classes.mrc"  # a volume that is called like the class map of another
    shutil.copy(volume, input_)
    common = ["segment", "--workdir", str(run), "--out"]
    return Case(
        [*common, str(folder / "out"), str(volume)],
        folder / "out" / "t_probability.mrc",
        input_,
        [*common, str(folder), str(volume), str(input_)],
    )


def _evaluate(run: Path, folder: Path) -> Case:
    shutil.copy(run / "data" / "test" / "test_000_objl.xml", folder / "truth.xml")
    shutil.copy(run / "picks" / "test_000.xml", folder / "picks.xml")
    truth, picks = str(folder / "truth.xml"), str(folder / "picks.xml")
    common = ["evaluate", "--truth", truth, "--picks", picks, "--rule", "tolerance", "--json"]
    return Case([*common, str(folder / "e.json")], folder / "e.json", folder / "picks.xml", [*common, picks])


def _doctor(run: Path, folder: Path) -> Case:
    data = folder / "data"
    shutil.copytree(run / "data", data)
    common = ["doctor", "--data", str(data), "--no-resources", "--json"]
    list_ = data / "train" / "train_000_objl.xml"
    return Case([*common, str(data / "findings.json")], data / "findings.json", list_, [*common, str(list_)])


def _convert(run: Path, folder: Path) -> Case:
    source = folder / "in.csv"
    particles = read_annotations(run / "picks" / "test_000.xml")
    source.write_text("x,y,z,class_label\n" + "".join(f"{x},{y},{z},1\n" for x, y, z in particles.positions_vox))
    return Case(
        ["convert", str(source), str(folder / "out.xml")],
        folder / "out.xml",
        source,
        ["convert", str(source), str(source)],
    )


def _convert_split(run: Path, folder: Path) -> Case:
    source = folder / "in.csv"
    source.write_text("x,y,z,tomogram\n1,2,3,a\n4,5,6,b\n")
    common = ["convert", str(source), "--split", "--to", "csv"]
    shutil.copy(source, folder / "a.csv")
    return Case(
        [*common, str(folder / "out")],
        folder / "out" / "b.csv",
        folder / "a.csv",
        ["convert", str(folder / "a.csv"), str(folder), "--split", "--to", "csv"],
    )


def _audit(run: Path, folder: Path) -> Case:
    data = folder / "data"
    shutil.copytree(run / "data", data)
    common = ["audit", "--workdir", str(run), "--data", str(data), "--no-correction", "--out"]
    return Case([*common, str(folder / "out")], folder / "out" / "audit.csv")


def _report(run: Path, folder: Path) -> Case:
    return Case(["report", "--workdir", str(run), "--out", str(folder / "out")], folder / "out" / "index.html")


CASES: dict[str, Callable[[Path, Path], Case]] = {
    "pick": _pick,
    "pick --together": _pick_together,
    "segment": _segment,
    "evaluate": _evaluate,
    "doctor": _doctor,
    "convert": _convert,
    "convert --split": _convert_split,
    "audit": _audit,
    "report": _report,
}


def run_(arguments: list[str]) -> int:
    verb, *rest = arguments
    return call(importlib.import_module(f"robpicker_jax.{verb}").main, rest)


@pytest.mark.parametrize("name", CASES)
def test_e1_nothing_is_overwritten_unasked(
    name: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name](tiny_run, tmp_path)
    case.writes.parent.mkdir(parents=True, exist_ok=True)
    case.writes.write_bytes(HAND_MADE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run_(case.command) == 2
    said = capsys.readouterr()
    assert f"{case.writes}: exists" in said.err
    assert "--overwrite" in said.err
    assert "tiles; memory" not in said.out  # refused before work
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run_([*case.command, "--overwrite"]) in (0, 2 if name == "doctor" else 0)
    assert case.writes.read_bytes() != HAND_MADE


@pytest.mark.parametrize("name", ["segment", "evaluate", "doctor", "convert", "convert --split"])
def test_e1_no_input_is_ever_replaced(
    name: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name](tiny_run, tmp_path)
    assert case.reads is not None
    assert case.onto is not None
    before = case.reads.read_bytes()
    for further in ([], ["--overwrite"]):
        assert run_([*case.onto, *further]) == 2
        assert f"{case.reads}: is an input" in capsys.readouterr().err
        assert case.reads.read_bytes() == before


def test_e1_label_maps_that_exist_are_kept(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "data", tmp_path / "data")
    target = tmp_path / "data" / "train" / "train_000_target.mrc"
    target.write_bytes(HAND_MADE)
    command = ["targets", "--data", str(tmp_path / "data"), "--config", str(tiny_config), "--labels", "sphere"]
    assert run_(command) == 0
    assert target.read_bytes() == HAND_MADE
    assert run_([*command, "--overwrite"]) == 0
    assert target.read_bytes() != HAND_MADE


def test_e1_simulation_and_training_leave_folders_of_other_origin_alone(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("data", "run"):
        (tmp_path / folder).mkdir()
    volume = tmp_path / "data" / "train" / "train_000.mrc"
    volume.parent.mkdir()
    volume.write_bytes(HAND_MADE)
    assert run_(["simulate", "--config", str(tiny_config), "--out", str(tmp_path / "data")]) == 2
    assert volume.read_bytes() == HAND_MADE
    own = tmp_path / "run" / "config.yaml"
    shutil.copy(tiny_config, own)
    before = own.read_bytes()
    capsys.readouterr()
    assert run_(["train", "--config", str(own), "--workdir", str(tmp_path / "run")]) == 2
    assert f"{own}: exists" in capsys.readouterr().err
    assert own.read_bytes() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_e1_the_rule_itself(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_text("x")
    folder.mkdir()
    (folder / "inside").write_text("y")
    link.symlink_to(tmp_path / "nothing")
    check_outputs([tmp_path / "new", folder / "new"], inputs=[file, folder, None])
    check_outputs([file], overwrite=True)
    check_outputs([file], own=[file])
    for taken in (file, folder, link):
        with pytest.raises(InputError, match="exists"):
            check_outputs([taken])
    hard, soft = tmp_path / "hard", tmp_path / "soft"
    os.link(file, hard)
    soft.symlink_to(file)
    for path, source in ((file, file), (hard, file), (soft, file), (folder / "inside", folder)):
        with pytest.raises(InputError, match="is an input"):
            check_outputs([path], inputs=[source], overwrite=True, own=[path])


def test_e1_json_is_written_beside_what_it_is_about(tiny_run: Path, tmp_path: Path) -> None:
    """A folder of lists that holds an earlier evaluation is no reason to refuse the next one."""
    shutil.copytree(tiny_run / "picks", tmp_path / "picks")
    out = tmp_path / "picks" / "e.json"
    command = ["evaluate", "--truth", str(tiny_run / "data"), "--picks", str(tmp_path / "picks"), "--json", str(out)]
    command += ["--config", str(tiny_run / "config.yaml")]
    assert run_(command) == 0
    assert run_(command) == 2
    assert run_([*command, "--overwrite"]) == 0
    assert "micro" in json.loads(out.read_text())
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())
