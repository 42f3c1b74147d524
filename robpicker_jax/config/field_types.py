"""What the fields of the configuration's sections are made of: ranges of numbers, and the line of help of each field."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, ConfigDict, Field

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]
PositiveInt = Annotated[int, Gt(0)]


def _whole_or_share(value: float) -> float:
    if 0 < value < 1:
        return value
    if value != int(value):
        raise ValueError("must be a whole number of steps, or a share of them below 1")
    return int(value)


StepsOrShare = Annotated[int | float, Ge(0), AfterValidator(_whole_or_share)]
"""A number of steps, or below 1 that share of all steps, which then follows where their number is changed."""

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Every section refuses keys that it does not know, and numbers that are infinite or none."""


def about(text: str) -> object:
    """The line of help of a field, as `--help` and the documentation show it."""
    return Field(description=text)
