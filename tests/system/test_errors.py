"""What an error of the input says, and where."""

from __future__ import annotations

import pytest

from robpicker_jax.system.errors import InputError, located


def test_where_is_added_only_where_it_is_missing() -> None:
    with pytest.raises(InputError) as caught, located("a.xml"):
        raise InputError("is empty", fix="list some")
    assert str(caught.value) == "a.xml: is empty; list some"
    with pytest.raises(InputError) as caught, located("a.xml"):
        raise InputError("is empty", where="b.mrc")
    assert caught.value.where == "b.mrc"
    with pytest.raises(KeyError), located("a.xml"):
        raise KeyError("other exceptions pass as they are")
