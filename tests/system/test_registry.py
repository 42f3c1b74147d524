"""Choosing an entry of a dictionary by its name."""

from __future__ import annotations

import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.registry import look_up

pytestmark = pytest.mark.fast

SHAPES = {"sphere": 1, "cube": 2}


def test_a_known_name_gives_its_entry() -> None:
    assert look_up(SHAPES, "cube", key="labels.shape") == 2


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(InputError) as caught:
        look_up(SHAPES, "spheer", key="labels.shape")
    message = str(caught.value)
    assert message.startswith("labels.shape: ")
    assert "'spheer'" in message
    assert "did you mean sphere?" in message
    assert "sphere, cube" in message
    with pytest.raises(InputError) as caught:
        look_up(SHAPES, "torus", key="labels.shape")
    assert "did you mean" not in str(caught.value)
