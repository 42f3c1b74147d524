"""What a forward pass through a network takes, for each voxel of a patch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_KEPT = 3  # arrays kept of each convolution: its input, and its result before and after normalisation


class Work(NamedTuple):
    """What a forward pass takes for each voxel of a patch, within a factor of two or three.

    Attributes:
        operations: floating-point operations, an addition and a multiplication counting two.
        kept: numbers kept for the backward pass.
    """

    operations: float
    kept: float


class Convolution(NamedTuple):
    """One convolution of a network.

    Attributes:
        taps: kernel voxels that contribute to one output voxel.
        inputs: channels in.
        outputs: channels out.
        level: number of times the resolution of its output was halved.
    """

    taps: int
    inputs: int
    outputs: int
    level: int


def work_of(convolutions: Iterable[Convolution]) -> Work:
    """The work of a network that consists of these convolutions: Σ 2·taps·a·b·8^−level operations a voxel."""
    operations = kept = 0.0
    for taps, inputs, outputs, level in convolutions:
        share = 8.0**-level
        operations += 2 * taps * inputs * outputs * share
        kept += _KEPT * outputs * share
    return Work(operations, kept)
