"""The lists that are reviewed, from disk: lists of picks in any format, or the table of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.names import NameRule
from robpicker_jax.datasets.lists import read_lists
from robpicker_jax.datasets.pairing import DEFAULT_RULE
from robpicker_jax.reviewing.items import ReviewList, is_audit
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class ReviewedTomogram:
    """A tomogram whose list is reviewed.

    Attributes:
        name: its name.
        voxel_size_angstrom: None where it is not known.
        shape_zyx: None where it is not known.
    """

    name: str
    voxel_size_angstrom: float | None = None
    shape_zyx: tuple[int, int, int] | None = None


def review_lists(
    path: Path,
    tomograms: Sequence[ReviewedTomogram],
    class_names: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    fmt: str | None = None,
    rule: NameRule = DEFAULT_RULE,
) -> list[ReviewList]:
    """The list of each tomogram.

    Args:
        path: a list, a folder of lists, or an audit's table `audit.csv`.
        tomograms: the tomograms.
        class_names: name of class 1, 2, ….
        options: how the lists are read, as `data.annotation_options` has it.
        fmt: their format; by default suffix and content decide.
        rule: which names mean the same tomogram.

    Raises:
        InputError: no list of a tomogram, or whatever is wrong with a list.
    """

    @lru_cache
    def lists_at(voxel_size: float | None, shape: tuple[int, int, int] | None) -> dict[str, Particles]:
        return read_lists(
            path,
            fmt=fmt,
            voxel_size_angstrom=voxel_size,
            shape_zyx=shape,
            class_names=class_names,
            allow_empty=True,
            options=options,
            rule=rule,
            truth=False,
        )

    found = []
    for tomogram in tomograms:
        size, shape = tomogram.voxel_size_angstrom, tomogram.shape_zyx
        lists = lists_at(size, shape)
        matching = rule.matching(tomogram.name, lists)
        if not matching and len(lists) == len(tomograms) == 1:
            matching = list(lists)  # one list for one tomogram needs no name
        if not matching:
            there = ", ".join(list(lists)[:4]) + (" …" if len(lists) > 4 else "")
            raise InputError(
                f"no list of tomogram {tomogram.name}",
                where=path,
                fix=f"call it {tomogram.name}.xml; there are {there}",
            )
        particles = lists[matching[0]]
        if is_audit(particles):
            found.append(ReviewList.of_audit(tomogram.name, particles, class_names, size, shape))
        else:
            found.append(ReviewList(tomogram.name, particles, class_names, None, size, shape))
    return found
