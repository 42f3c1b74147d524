"""Where nested settings differ."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.config import Config, Species
from robpicker_jax.config.differences import differing_keys

pytestmark = pytest.mark.fast

NESTED = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=1), inner),
)


@given(NESTED)
def test_what_is_equal_has_no_differences(value: object) -> None:
    assert differing_keys(value, value) == []


@given(NESTED, NESTED)
def test_different_structures_differ_somewhere(one: object, other: object) -> None:
    assert bool(differing_keys(one, other)) == (one != other)


def test_keys_are_dotted_and_lists_count_from_0() -> None:
    species = (Species("a", 3.0), Species("b", 4.0))
    one = Config()
    one = replace(one, data=replace(one.data, species=species))
    other = replace(one, train=replace(one.train, steps=7))
    other = replace(other, data=replace(other.data, species=(species[0], replace(species[1], copies=3))))
    assert differing_keys(asdict(one), asdict(other)) == ["data.species.1.copies", "train.steps"]
    shorter = replace(one, data=replace(one.data, species=species[:1]))
    assert differing_keys(asdict(one), asdict(shorter)) == ["data.species"]
    assert differing_keys({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["a", "c"]
