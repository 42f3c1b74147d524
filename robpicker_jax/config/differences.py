"""Where two configurations, or any two nested structures of settings, differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differing_keys(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two nested structures of mappings, lists and tuples differ.

    Items of lists have their index as key; lists of different lengths differ as a whole.

    Args:
        one, other: such as `dataclasses.asdict` of two configurations, or parsed JSON.
        prefix: what every key begins with, with its dot.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys: list[str] = []
        for key in dict.fromkeys([*one, *other]):
            if key in one and key in other:
                keys += differing_keys(one[key], other[key], f"{prefix}{key}.")
            else:
                keys.append(f"{prefix}{key}")
        return keys
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return differing_keys(dict(enumerate(one)), dict(enumerate(other)), prefix)
    return [] if one == other else [prefix.removesuffix(".")]
