"""What is searched: for each dotted field a choice of values or a range.

On the command line:

    train.loss=dice|tversky                       a choice; each value is YAML
    model.widths=[8,16]|[16,32]
    train.batch_size=4..16                        whole numbers from 4 to 16, both included
    train.inner.learning_rate=1e-4..1e-2:log      evenly in the logarithm
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robpicker_jax.config.loading import parse_yaml
from robpicker_jax.system.errors import InputError

_FIXED = ("simulation", "label_noise", "data")
_RANGE = re.compile(r"\s*([^.\s|]\S*?)\.\.([^:\s]+)(:log)?\s*")
_NUMBER = re.compile(r"[+-]?\d+e[+-]?\d+", re.IGNORECASE)
_FIX = "give KEY=a|b|c, KEY=LOW..HIGH or KEY=LOW..HIGH:log"


@dataclass(frozen=True)
class Choice:
    """Some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    Attributes:
        low, high: the ends.
        log: whether values are drawn evenly in their logarithm.
        whole: whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float | int:
        """The value at a share of the way from low to high, 0 ≤ share < 1; whole numbers each take the same part of it."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return min(int(value), int(self.high)) if self.whole else value


Space = Mapping[str, Choice | Range]


def parse_space(specifications: Sequence[str]) -> dict[str, Choice | Range]:
    """The space that "KEY=VALUES" texts describe.

    Raises:
        InputError: no such text, a key twice, a range that is none, or a field that all trials share: the data, the steps.
    """
    space: dict[str, Choice | Range] = {}
    for text in specifications:
        key, separator, values = (part.strip() for part in text.partition("="))
        if not separator or not key or not values:
            raise InputError("is no field with values", where=f"--over {text}", fix=_FIX)
        if key in space:
            raise InputError("is given twice", where=f"--over {key}", fix="give all its values at once")
        if key.partition(".")[0] in _FIXED:
            raise InputError("makes the data, which all trials share", where=f"--over {key}", fix="leave it out")
        if key == "train.steps":
            raise InputError("is that at which trials are compared", where=f"--over {key}", fix="leave it out")
        space[key] = _range(values, key) or Choice(tuple(_value(value, key) for value in values.split("|")))
    if not space:
        raise InputError("no field to search", where="--over", fix=_FIX)
    return space


def _value(text: str, key: str) -> Any:
    """A value of a choice; 1e-3 is a number, which YAML 1.1 takes for text as it has no point."""
    value = parse_yaml(text, key)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _range(text: str, key: str) -> Range | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    try:
        low, high = float(match[1]), float(match[2])
    except ValueError:
        raise InputError(f"{text!r} is no range of numbers", where=f"--over {key}", fix=_FIX) from None
    whole = all(re.fullmatch(r"[+-]?\d+", number) for number in match.groups()[:2])
    log = match[3] is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        what = "must begin above 0 to be even in its logarithm" if log and low <= 0 else "must rise from low to high"
        raise InputError(f"{text!r} {what}", where=f"--over {key}", fix=_FIX)
    return Range(low, high, log, whole)


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Values by field as "dotted.key=value" strings for a configuration."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
