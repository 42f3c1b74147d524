"""Mutated files of every reader give a result or one line, never another exception, a hang or a page of text."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import SUBJECTS
from tests.fuzz.fuzzing import findings_of

QUICK = 60


@pytest.mark.parametrize("reader", SUBJECTS)
def test_mutated_files_raise_nothing_but_input_errors(reader: str) -> None:
    found = findings_of(reader, range(QUICK))
    assert not found, [(finding.number, finding.what, finding.where) for finding in found[:5]]
