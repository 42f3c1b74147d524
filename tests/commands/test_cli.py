"""The command line: overrides, help, exit codes."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import robpicker_jax
from robpicker_jax.commands.cli import call, configured_parser, parse_configured, split_overrides
from robpicker_jax.commands.verbs import dispatch, verbs
from robpicker_jax.system.errors import InputError


def test_dotted_flags_are_taken_out() -> None:
    arguments = ["a.mrc", "--train.steps", "5", "--out", "x", "--model.remat", "--train.inner.name=sgd", "--x.y", "-1"]
    rest, overrides = split_overrides(arguments)
    assert rest == ["a.mrc", "--out", "x"]
    assert overrides == ["train.steps=5", "model.remat=true", "train.inner.name=sgd", "x.y=-1"]


def test_names_below_a_field_may_be_any_users_names() -> None:
    arguments = [
        "--data.lists.*",
        "corrected",
        "--data.lists.apo-ferritin=a.star",
        "--picking.min_scores.é",
        "0.5",
        "a.b",
    ]
    rest, overrides = split_overrides(arguments)
    assert rest == ["a.b"]
    assert overrides == ["data.lists.*=corrected", "data.lists.apo-ferritin=a.star", "picking.min_scores.é=0.5"]


def test_flags_override_the_configuration() -> None:
    _, config = parse_configured(
        configured_parser("train", "text"), ["--train.steps", "7", "--data.species.0.copies=3"]
    )
    assert config.train.steps == 7
    assert config.data.species[0].copies == 3


@pytest.mark.parametrize("verb", verbs())
def test_help_is_complete_and_exits_0(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"robpicker_jax.commands.{verb}").main
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"robpicker {verb}" in text
    if verb in ("train", "simulate"):
        assert "--train.inner.learning_rate" in text


def test_bad_arguments_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: list[str]) -> int:
        raise InputError("is truncated", where="a.mrc", fix="copy it again")

    assert call(main, []) == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == "error: a.mrc: is truncated; copy it again"
    assert captured.out == ""


def test_interruption_has_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    assert call(main, []) == 130
    assert "interrupted" in capsys.readouterr().err


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The package as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "robpicker_jax", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_package_lists_its_verbs_and_corrects_a_typing_error() -> None:
    listed = run_module("--help")
    assert listed.returncode == 0
    assert all(verb in listed.stdout for verb in verbs())
    wrong = run_module("tarin")
    assert wrong.returncode == 2
    assert "tarin" in wrong.stderr
    assert "did you mean train?" in wrong.stderr


@pytest.mark.parametrize("arguments", [("train", "--steps", "5"), ("train", "--train.stepz", "5"), ("pick", "a.mrc")])
def test_bad_command_lines(arguments: tuple[str, ...]) -> None:
    result = run_module(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("verb", verbs())
def test_help_imports_nothing_heavy(verb: str) -> None:
    """What makes a start slow must not be imported for help (seconds are a matter of the machine; modules are not)."""
    heavy = "jax jaxlib flax optax orbax scipy sklearn pandas matplotlib mrcfile starfile tensorboardX"
    if verb != "convert":  # its help lists the formats, whose modules read and write arrays
        heavy += " numpy"
    code = (
        "import sys\n"
        f"sys.argv = ['robpicker', {verb!r}, '--help']\n"
        "from robpicker_jax.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & set({heavy!r}.split())))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert f"robpicker {verb}" in result.stdout
    assert result.stdout.strip().endswith("[]")


PACKAGE = Path(robpicker_jax.__file__).parent


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_the_root_holds_short_doors_alone(path: Path) -> None:
    """`__init__` is the face for notebooks, `__main__` the door of all verbs, and any other module is a verb."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    first = tree.body[1].lineno  # behind the docstring
    lines = [line for line in path.read_text(encoding="utf-8").splitlines()[first - 1 :] if line.strip()]
    assert len(lines) <= 30
    if not path.stem.startswith("__"):
        assert ast.get_docstring(tree).startswith(f"`{path.stem}`: ")
        assert callable(importlib.import_module(f"robpicker_jax.{path.stem}").main)
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)


def test_a_door_is_added_by_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "middle.py").write_text(
        '"""`middle`: mean of what is given."""\n\n\n'
        "def main(arguments):\n    print(sum(map(float, arguments)) / len(arguments))\n"
    )
    monkeypatch.setattr(robpicker_jax, "__path__", [*robpicker_jax.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "robpicker_jax.middle", raising=False)
    importlib.invalidate_caches()
    assert verbs()["middle"] == "mean of what is given"
    assert call(dispatch, ["middle", "1", "2"]) == 0
    assert capsys.readouterr().out == "1.5\n"
    sys.modules.pop("robpicker_jax.middle")
