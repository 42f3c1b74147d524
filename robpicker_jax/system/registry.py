"""Choosing a function by its name in a dictionary, with an error that lists the names there are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from robpicker_jax.system.errors import InputError

T = TypeVar("T")


def look_up(registry: Mapping[str, T], name: str, *, what: str, where: object = "") -> T:
    """The entry of a dictionary that a configuration names.

    Args:
        registry: name → entry.
        name: the name asked for.
        what: what the entries are, for the error ("sampler").
        where: the configuration key or file that holds the name, for the error.

    Raises:
        InputError: no such name; the message gives the nearest one, if any is near, and lists them all.
    """
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name, registry, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"no {what} {name!r}", where=where, fix=f"{guess}use one of {', '.join(registry)}")
