"""A format declared outside the package: one record in `FORMATS`, and every command that reads or writes lists has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import FORMATS, Format, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.format import Assumption
from robpicker_jax.annotations.options import options_for
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.commands import convert, evaluate
from robpicker_jax.commands.cli import call
from robpicker_jax.datasets.discovery import discover
from robpicker_jax.picking.pick_files import PickFiles, PickTarget
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc

POSITIONS = np.array([[1.5, 2.0, 3.25], [10.0, 20.0, 30.0]])


def read_lines(
    path: Path,
    *,
    class_labels: Mapping[str, int] | None = None,
    voxel_size_angstrom: float | None = None,
    shift: int = 0,
) -> Particles:
    """`class tomogram x y z` in nanometres, one particle a line, with a comment line before."""
    if not voxel_size_angstrom:
        raise InputError("coordinates are in nanometres", where=path, fix="give the voxel size")
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith(";")]
    names = [row[0] for row in rows]
    return Particles(
        np.array([[float(cell) for cell in row[2:]] for row in rows]).reshape(-1, 3) * 10 / voxel_size_angstrom - shift,
        [(class_labels or {}).get(name, 0) for name in names],
        class_names=names,
        tomograms=[row[1] for row in rows],
    )


def write_lines(
    path: Path, particles: Particles, *, voxel_size_angstrom: float | None = None, comment: str = "made elsewhere"
) -> None:
    """The same."""
    assert voxel_size_angstrom
    assert particles.class_names is not None
    assert particles.tomograms is not None
    nanometres = particles.positions_vox * voxel_size_angstrom / 10
    rows = [
        " ".join([name, tomogram, *map(str, position)])
        for name, tomogram, position in zip(particles.class_names, particles.tomograms, nanometres, strict=True)
    ]
    path.write_text("\n".join([f"; {comment}", *rows]) + "\n")


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Format:
    """The format, registered for one test."""
    entry = Format(
        name="mine",
        title="our own lists, nm",
        suffixes=(".mine", ".star"),
        read=read_lines,
        write=write_lines,
        keeps=frozenset({"class_names", "tomograms"}),
        unit="angstrom",
        options={"shift": "voxels to subtract", "comment": "first line of the file"},
        assumptions=(Assumption("shift", 0, 1, "nothing is subtracted", otherwise="shift=1 for one voxel"),),
        recognises=lambda start: start.startswith(b"; made elsewhere"),
    )
    monkeypatch.setitem(FORMATS, "mine", entry)
    return entry


@pytest.fixture
def particles() -> Particles:
    return Particles(
        POSITIONS, [1, 2], class_names=["ribosome", "proteasome"], tomograms=["a", "b"], scores=[0.5, 0.25]
    )


def run(*arguments: object) -> int:
    return call(convert.main, [str(argument) for argument in arguments])


def test_lists_are_converted_to_it_and_from_it(
    mine: Format, particles: Particles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotations(tmp_path / "in.csv", particles)
    known = ["--voxel-size", 8, "--class-labels", "ribosome=1,proteasome=2"]
    assert run(tmp_path / "in.csv", tmp_path / "out.mine", *known, "--to-option", "comment=hello") == 0
    out = capsys.readouterr().out
    assert "our own lists, nm" in out
    assert any("scores" in line and "LOST" in line for line in out.splitlines())
    assert (tmp_path / "out.mine").read_text().startswith("; hello\nribosome a 1.2 ")
    assert run(tmp_path / "out.mine", tmp_path / "back.xml", *known) == 0
    assert "--from-option shift=1" in capsys.readouterr().out
    back = read_annotations(tmp_path / "back.xml")
    np.testing.assert_allclose(back.positions_vox, POSITIONS)
    assert back.labels.tolist() == [1, 2]
    assert back.tomograms.tolist() == ["a", "b"]
    assert run(tmp_path / "out.mine", tmp_path / "moved.xml", *known, "--from-option", "shift=1") == 0
    assert "assumed" not in capsys.readouterr().out
    np.testing.assert_allclose(read_annotations(tmp_path / "moved.xml").positions_vox, POSITIONS - 1)
    assert run(tmp_path / "out.mine", tmp_path / "none.xml") == 2
    assert "voxel size" in capsys.readouterr().err


def test_it_is_told_by_its_first_line_where_it_shares_a_suffix(
    mine: Format, particles: Particles, tmp_path: Path
) -> None:
    path = tmp_path / "a.star"
    write_annotations(path, particles, fmt="mine", voxel_size_angstrom=8.0)
    assert format_of(path, None) is mine
    write_annotations(path, particles, fmt="star")
    assert format_of(path, None) is FORMATS["star"]
    assert format_of(tmp_path / "new.star", None, "write") is FORMATS["star"]


def test_its_options_are_checked_by_type(mine: Format, particles: Particles, tmp_path: Path) -> None:
    path = tmp_path / "a.mine"
    write_annotations(path, particles, voxel_size_angstrom=8.0)
    assert options_for(path, {"shift": 3}) == {"shift": 3}
    with pytest.raises(InputError, match="shift: input should be a valid integer"):
        options_for(path, {"mine": {"shift": "much"}})
    with pytest.raises(InputError, match="no such option") as caught:
        options_for(path, {"mine": {"shfit": 1}})
    assert "did you mean shift?" in str(caught.value)


def test_picks_and_evaluation_have_it(mine: Format, particles: Particles, tmp_path: Path) -> None:
    files = PickFiles(tmp_path, ["mine", "csv"], together=True, options={"comment": "made elsewhere by pick"})
    targets = [PickTarget("a", (64, 64, 64), 8.0), PickTarget("b", (64, 64, 64), 8.0)]
    files.check(targets)
    written = files.write_together([(targets[0], particles.select([0])), (targets[1], particles.select([1]))])
    assert [path.name for path in written] == ["picks.mine", "picks.csv"]
    with pytest.raises(InputError, match="voxel size"):
        files.check([PickTarget("a", (64, 64, 64))])
    arguments = ["--truth", tmp_path / "picks.mine", "--picks", tmp_path / "picks.csv", "--voxel-size", 8]
    more = ["--rule", "tolerance", "--classes", "ribosome,proteasome", "--json", tmp_path / "e.json"]
    assert call(evaluate.main, [str(argument) for argument in [*arguments, *more]]) == 0
    assert '"macro_f1": 1.0' in (tmp_path / "e.json").read_text()


def test_a_data_set_finds_its_lists(mine: Format, particles: Particles, tmp_path: Path) -> None:
    for split in ("train", "meta"):
        (tmp_path / split).mkdir()
        write_mrc(tmp_path / split / f"{split}1.mrc", np.zeros((40, 40, 40), np.float32), 8.0)
        write_annotations(tmp_path / split / f"{split}1.mine", particles, voxel_size_angstrom=8.0)
    found = discover(tmp_path)
    assert [tomogram.annotation_path.name for tomogram in found["train"]] == ["train1.mine"]


def test_an_option_without_help_is_no_format() -> None:
    with pytest.raises(ValueError, match=r"shift.*help for \[\]"):
        Format(name="mine", title="", suffixes=(".mine",), read=read_lines)
    with pytest.raises(ValueError, match="colour"):
        Format(name="mine", title="", suffixes=(".mine",), read=read_lines, options={"shift": "", "colour": ""})
