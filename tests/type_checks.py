"""The decorator with which the tests check the annotations of the package at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# An int is accepted where a float is annotated, as static type checkers do (PEP 484).
_CONFIGURATION = BeartypeConf(is_pep484_tower=True)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with each argument and result checked against its annotation."""
    return beartype(function, conf=_CONFIGURATION)
