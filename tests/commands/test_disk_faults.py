"""A disk that is full or cannot be written, and input that is gone: one line and exit code 2, in every command.

The disks are real: small file systems in memory, filled to the last byte or mounted to be read only. Where mounting is not
allowed, these tests are skipped.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.commands import pick, train
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.verbs import verbs
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.volumes import open_volume, write_mrc

MEBIBYTE = 1 << 20


@contextlib.contextmanager
def disk(folder: Path, options: str = f"size={4 * MEBIBYTE}") -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no program to mount a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({done.stderr.strip() or done.returncode})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take the last byte of a disk."""
    with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def _volume(run: Path) -> str:
    return str(run / "data" / "test" / "test_000.mrc")


def _list(run: Path) -> str:
    return str(run / "data" / "test" / "test_000_objl.xml")


def _match(run: Path, out: Path, beside: Path) -> list[str]:
    ball = np.hypot(*np.ogrid[-4:5, -4:5]) < 3
    write_mrc(beside / "template.mrc", np.repeat(ball[None].astype(np.float32), 9, axis=0), 22.0)
    files = ["--template", str(beside / "template.mrc"), "--tomo", _volume(run), "--out", str(out), "--max-picks", "2"]
    return [*files, "--angle-step", "90", "--diameter", "120", "--no-centre", "--tilts", "none", "--cutoff", "none"]


def _average(run: Path, out: Path, beside: Path) -> list[str]:
    places = np.random.default_rng(0).uniform([12, 12, 12], [36, 28, 20], (6, 3))
    write_annotations(beside / "test_000.csv", Particles(places, [2] * 6))
    files = ["--tomo", _volume(run), "--picks", str(beside / "test_000.csv"), "--out", str(out)]
    common = ["--config", str(run / "config.yaml"), "--iterations", "0", "--box", "20", "--class", "apoferritin"]
    return [*files, *common]


def _init(run: Path, out: Path, beside: Path) -> list[str]:
    return [str(run / "data"), "--out", str(out), "--species", "ribosome:110,apoferritin:66"]


# Arguments of each command, from a finished run, what it writes, and a folder for what it reads besides.
WRITING: dict[str, Callable[[Path, Path, Path], list[str]]] = {
    "train": lambda run, out, beside: ["--config", str(run / "config.yaml"), "--workdir", str(out)],
    "simulate": lambda run, out, beside: ["--config", str(run / "config.yaml"), "--out", str(out)],
    "export": lambda run, out, beside: [str(run), str(out)],
    "sweep": lambda run, out, beside: [
        *("--config", str(run / "config.yaml"), "--data.dir", str(run / "data"), "--train.variant", "supervised"),
        *("--workdir", str(out), "--over", "train.batch_size=1|2", "--trials", "1"),
    ],
    "card": lambda run, out, beside: [str(run), "--json", str(out)],
    "segment": lambda run, out, beside: ["--workdir", str(run), "--out", str(out), _volume(run)],
    "pick": lambda run, out, beside: ["--workdir", str(run), "--out", str(out), _volume(run)],
    "evaluate": lambda run, out, beside: [
        "--truth",
        _list(run),
        "--picks",
        _list(run),
        "--rule",
        "tolerance",
        "--json",
        str(out),
    ],
    "convert": lambda run, out, beside: [_list(run), str(out), "--to", "csv"],
    "doctor": lambda run, out, beside: ["--data", str(run / "data"), "--no-resources", "--json", str(out)],
    "report": lambda run, out, beside: ["--workdir", str(run), "--out", str(out)],
    "audit": lambda run, out, beside: [
        "--workdir",
        str(run),
        "--data",
        str(run / "data"),
        "--no-correction",
        "--out",
        str(out),
    ],
    "init": _init,
    "review": lambda run, out, beside: [
        *("--workdir", str(run), "--picks", _list(run), "--out", str(out)),
        _volume(run),
    ],
    "spectrum": lambda run, out, beside: [_volume(run), "--target", _volume(run), "--out", str(out)],
    "match": _match,
    "average": _average,
    # Label maps are written into the data set, of which a copy is made.
    "targets": lambda run, out, beside: [
        "--data",
        str(out),
        "--config",
        str(run / "config.yaml"),
        "--labels",
        "sphere",
    ],
}


def test_every_command_is_here() -> None:
    assert set(verbs()) == set(WRITING)


def prepared(verb: str, run: Path, disk_: Path, beside: Path) -> list[str]:
    """The arguments of a command that writes to a disk."""
    if verb == "targets":
        shutil.copytree(run / "data", disk_ / "data", ignore=shutil.ignore_patterns("*_target.mrc"))
    return WRITING[verb](run, disk_ / ("data" if verb == "targets" else "out"), beside)


def refused(verb: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command: exit code 2, and one line that says what is wrong with the disk."""
    capsys.readouterr()
    code = call(importlib.import_module(f"robpicker_jax.{verb}").main, arguments)
    said = capsys.readouterr()
    assert code == 2, said
    errors = [line for line in said.err.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert words in errors[0].lower()


# mrcfile leaves a file open where its first header finds no room; Python closes it a moment later, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("verb", WRITING)
def test_b15_e6_a_full_disk_is_one_line(
    verb: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk(tmp_path / "disk") as small:
        arguments = prepared(verb, tiny_run, small, tmp_path)
        fill(small)
        before = sorted(path for path in small.rglob("*") if path.is_file())
        refused(verb, arguments, "no space left on device", capsys)
        left = {path for path in small.rglob("*") if path.is_file() and path.stat().st_size} - set(before)
        assert not left, left  # nothing half-written


@pytest.mark.parametrize("verb", WRITING)
def test_b15_e6_a_disk_that_is_read_only_is_one_line(
    verb: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk(tmp_path / "disk") as small:
        arguments = prepared(verb, tiny_run, small, tmp_path)
        make_read_only(small)
        refused(verb, arguments, "read-only file system", capsys)


# Writers of Orbax that found no room for a checkpoint are called back when their event loop is closed, and Python warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_b15_a_disk_that_fills_up_during_training_keeps_what_was_finished(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room for the start and some checkpoints, not for all; with more room the same command goes on to the end."""
    config = ["--config", str(tiny_run / "config.yaml"), "--data.dir", str(tiny_run / "data")]
    with disk(tmp_path / "disk", "size=420k") as small:
        arguments = [*config, "--train.variant", "supervised", "--workdir", str(small / "run")]
        refused("train", arguments, "no space left on device", capsys)
        subprocess.run(["mount", "-o", f"remount,size={32 * MEBIBYTE}", str(small)], check=True)
        assert call(train.main, arguments) == 0
        assert (small / "run" / "results.json").is_file()


@pytest.mark.parametrize("verb", [verb for verb in WRITING if verb not in ("train", "simulate", "sweep")])
def test_e6_input_that_is_gone_is_one_line(
    verb: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = prepared(verb, tiny_run, tmp_path, tmp_path)
    gone = {"--data", "--workdir", "--truth", "--tomo"}
    at = next((index + 1 for index, flag in enumerate(arguments) if flag in gone), 0)
    arguments[at] = str(tmp_path / "gone" / Path(arguments[at]).name)
    assert call(importlib.import_module(f"robpicker_jax.{verb}").main, arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "gone" in error
    assert len(error.splitlines()) == 1


def test_e6_input_that_vanishes_between_two_tomograms(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        shutil.copy(_volume(tiny_run), tmp_path / f"{name}.mrc")
    before = ModelPicker.pick

    def pick_and_delete(self: ModelPicker, *arguments: object, **options: object) -> object:
        (tmp_path / "b.mrc").unlink(missing_ok=True)
        return before(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelPicker, "pick", pick_and_delete)
    volumes = [str(tmp_path / f"{name}.mrc") for name in "ab"]
    assert call(pick.main, ["--workdir", str(tiny_run), "--out", str(tmp_path / "out"), *volumes]) in (0, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) <= 1
    assert (tmp_path / "out" / "a.xml").is_file()


def test_e6_a_file_without_permission_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.csv"
    source.write_text("x,y,z\n1,2,3\n")
    source.chmod(0)
    own = os.geteuid()
    if own == 0:  # root may read everything
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        refused("convert", [str(source), str(tmp_path / "b.xml")], "permission denied", capsys)
    finally:
        os.seteuid(own)
        source.chmod(0o600)


def test_links_as_outputs_lead_nowhere(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link at an output exists, so it is refused; with --overwrite it is replaced, and what it led to stays."""
    own = tmp_path / "own.mrc"
    shutil.copy(_volume(tiny_run), own)
    content = own.read_bytes()
    (tmp_path / "out").mkdir()
    for name in ("test_000_classes.mrc", "test_000_probability.mrc"):
        (tmp_path / "out" / name).symlink_to(own)
    arguments = WRITING["segment"](tiny_run, tmp_path / "out", tmp_path)
    refused("segment", arguments, "exists", capsys)
    main = importlib.import_module("robpicker_jax.segment").main
    assert call(main, [*arguments, "--overwrite"]) == 0
    assert own.read_bytes() == content
    assert not (tmp_path / "out" / "test_000_classes.mrc").is_symlink()
    with open_volume(tmp_path / "out" / "test_000_classes.mrc") as volume:
        assert volume.shape_zyx == (32, 40, 48)
