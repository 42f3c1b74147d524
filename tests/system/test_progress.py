"""Kind: names and paths that look like markup (field row E4)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robpicker_jax.commands import doctor, train
from robpicker_jax.commands.cli import call
from robpicker_jax.system import progress as shown

ODD = st.text(st.sampled_from("[]/red bound:star\\\\="), min_size=1, max_size=12)


@given(name=ODD)
def test_e4_every_name_is_printed_as_it_is(name: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=200, markup=shown.console._markup, emoji=shown.console._emoji)
    table = Table()
    table.add_column(f"<{name}>")
    table.add_row(f"({name})")
    console.print(table)
    console.print(f"{{{name}}}", highlight=False, soft_wrap=True)
    for text in (f"({name})", f"<{name}>", f"{{{name}}}"):
        assert text in stream.getvalue()


def test_e10_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    stream = io.StringIO()
    console = shown.PatientConsole(file=stream, force_terminal=True, width=120, markup=False, emoji=False)
    name = "a\x1b[31m\x1b]0;title\x07b\x9bc\x7f"
    table = Table("name", title=name)
    table.add_row(name)
    console.print(table)
    console.print(Text(name), name, style="bold", soft_wrap=True, highlight=False)
    output = stream.getvalue()
    for sequence in ("\x1b[31m", "\x1b]0", "\x07", "\x9b", "\x7f"):
        assert sequence not in output
    assert output.count("␛[31m") == 4
    assert "\x1b[1m" in output  # the program's own styles are there


def test_e4_a_bar_on_a_terminal_takes_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(shown, "console", Console(file=stream, force_terminal=True, width=120))
    with shown.progress("at [/red]", 2) as bar:
        bar.advance(1, tomogram="x [bound] [/red]")
    with shown.status("examining [/red]") as show:
        show("examined [/blue]")
    assert "x [bound] [/red]" in stream.getvalue()


def test_e4_a_species_named_like_markup_is_trained_to_the_end(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.species.0.name='[/red] x [bound]'", "--train.steps=1", "--train.variant=supervised"]
    workdir = tmp_path / "[red]" / "run"
    arguments = ["--config", str(tiny_config), *flags]
    assert call(train.main, [*arguments, "--workdir", str(workdir)]) == 2  # a path that checkpoints cannot be read from
    assert "cannot be read back" in capsys.readouterr().err
    assert call(train.main, [*arguments, "--workdir", str(tmp_path / "run")]) == 0
    assert "[/red] x [bound]" in capsys.readouterr().out
    assert call(doctor.main, ["--data", str(tmp_path / "run" / "data"), *arguments, "--no-resources"]) in (0, 2)
    assert "[/red] x [bound]" in capsys.readouterr().out
