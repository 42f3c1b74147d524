"""20,000 mutated files of every reader; `python -m tests.fuzz` does the same from the command line."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import SUBJECTS
from tests.fuzz.fuzzing import findings_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("reader", SUBJECTS)
def test_twenty_thousand_mutated_files_raise_nothing_but_input_errors(reader: str) -> None:
    found = findings_of(reader, range(20_000))
    assert not found, [(finding.number, finding.what, finding.where) for finding in found[:5]]
