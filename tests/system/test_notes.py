"""Notes are said once on standard error, or gathered by whoever reports them in another way."""

from __future__ import annotations

import pytest

from robpicker_jax.system.notes import gathered_notes, note


def test_a_note_is_said_once_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    for where in ("first.star", "first.star", "second.star"):
        note("the unit [bold]is[/bold] assumed", where=where)
    said = capsys.readouterr().err
    assert said.count("first.star: the unit [bold]is[/bold] assumed") == 1
    assert said.count("second.star") == 1


def test_gathered_notes_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with gathered_notes() as outer:
        note("one")
        with gathered_notes() as inner:
            note("two")
        note("three")
        note("three")
    assert (outer, inner) == (["one", "three", "three"], ["two"])
    assert "three" not in capsys.readouterr().err
