"""Template matching as a picker: `pick --picker template_matching --workdir templates.yaml`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.config import DataConfig, apply_overrides, as_plain_values, validated
from robpicker_jax.config.loading import parse_yaml
from robpicker_jax.config.matching_section import MatchingConfig
from robpicker_jax.matching import Matcher
from robpicker_jax.matching.building import PHANTOM, build_matcher
from robpicker_jax.picking.inference import MemoryBound, Reader
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_text

FILE = "templates.yaml"
"""The description's name, where a folder is given."""


@dataclass(frozen=True, eq=False)
class TemplatePicker:
    """Picks by template matching; see `picker.Picker` for the contract.

    Tomograms are opened as they are (mean 0, standard deviation 1): contrast belongs to the templates.

    Attributes:
        config: templates and settings.
        min_scores: smallest score of a pick of each class, in place of what `config` says; None: as `config` says.

    Raises:
        InputError: a map that cannot be used, or settings that do not fit each other.
    """

    config: MatchingConfig
    min_scores: tuple[float, ...] | None = None
    matcher: Matcher = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matcher", build_matcher(self.config, self.min_scores))

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs wherever picks may differ."""
        settings = json.dumps(as_plain_values(self.config), sort_keys=True)
        return hashlib.sha256(f"{self.matcher.fingerprint()} {settings} {self.min_scores}".encode()).hexdigest()

    @property
    def class_names(self) -> list[str]:
        """Names of the templates, that of label 1 first."""
        return self.matcher.class_names

    @property
    def data(self) -> DataConfig:
        """How tomograms are opened."""
        return DataConfig(voxel_size_angstrom=self.config.voxel_size_angstrom)

    @property
    def voxel_size_angstrom(self) -> float:
        """Voxel size that the templates were made for, Å."""
        return self.config.voxel_size_angstrom

    @property
    def smallest_scores(self) -> list[float | None]:
        """Smallest score of a pick of class 1, 2, …; None where a cut-off by statistics finds it in each tomogram."""
        return [extraction.min_score for extraction in self.matcher.extraction]

    def tiles(self, shape_zyx: Sequence[int]) -> int:
        """Units of work of a tomogram of this shape."""
        return self.matcher.units(_shape(shape_zyx))

    def memory(self, shape_zyx: Sequence[int], *, resident_bytes: int = 0) -> MemoryBound:
        """All searches, a tile, and the score maps."""
        return MemoryBound(self.matcher.bytes(_shape(shape_zyx)) + resident_bytes, 0, shared=True)

    def pick(
        self, tomogram: Reader, on_tiles: Callable[[int], None] | None = None, *, mask: np.ndarray | None = None
    ) -> Particles:
        """Picks by falling score, with orientations; no two templates' picks are nearer than the larger radius.

        Raises:
            InputError: a tomogram in which no particle has room.
        """
        for template, extraction in zip(self.matcher.templates, self.matcher.extraction, strict=True):
            if min(tomogram.shape_zyx) <= 2 * extraction.edge_vox:
                raise InputError(
                    f"a tomogram of {min(tomogram.shape_zyx)} voxels at its thinnest has no room for {template.name} of "
                    f"diameter {template.diameter_vox:.0f} voxels",
                    fix="leave this tomogram or this template out, or state a smaller diameter_angstrom",
                )
        return self.matcher.match(_Boxes(tomogram), mask=mask, on_units=on_tiles).particles

    def with_min_scores(self, min_scores: Sequence[float]) -> TemplatePicker:
        """The same picker with a smallest score for each class, in place of any cut-off; turned templates are shared."""
        result = replace(self, min_scores=tuple(min_scores))
        result.matcher.share_searches(self.matcher)
        return result

    def candidates(self, most: int) -> TemplatePicker:
        """The same picker without any cut-off: the best `most` peaks of each template; turned templates are shared."""
        config = replace(
            self.config,
            cutoff="none",
            max_picks=most,
            templates=tuple(replace(entry, min_score=None) for entry in self.config.templates),
        )
        result = replace(self, config=config, min_scores=None)
        result.matcher.share_searches(self.matcher)
        return result


@dataclass(frozen=True, eq=False)
class _Boxes:
    """A tomogram that is read by boxes, as matching wants it."""

    reader: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape_zyx

    def __getitem__(self, region: tuple[slice, slice, slice], /) -> np.ndarray:
        return self.reader.read(region)


def _shape(shape_zyx: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = map(int, shape_zyx)
    return z, y, x


def template_picker(source: Path, overrides: Sequence[str] = ()) -> TemplatePicker:
    """The picker `template_matching`, as a YAML file describes it (`MatchingConfig`).

    Args:
        source: the file, or a folder with `templates.yaml`; maps are looked for beside it.
        overrides: "matching.key=value" strings, such as "matching.angle_step_deg=7".

    Raises:
        InputError: an unreadable file, an unknown or impossible setting, a map that cannot be used.
    """
    path = source / FILE if source.is_dir() else source
    if not path.is_file():
        raise InputError("describes no templates", where=path, fix="give a YAML file: docs/matching.md shows one")
    data: Any = parse_yaml(read_text(path), path)
    if not isinstance(data, dict):
        raise InputError("must hold a mapping", where=path)
    for override in overrides:
        if not override.startswith("matching."):
            raise InputError("is no setting of template matching", where=override, fix="write --matching.NAME VALUE")
    config = validated(MatchingConfig, apply_overrides({"matching": data}, overrides)["matching"], path)
    beside = [
        entry
        if entry.density.startswith(PHANTOM)
        else replace(entry, density=str(path.parent / Path(entry.density).expanduser()))
        for entry in config.templates
    ]
    return TemplatePicker(replace(config, templates=tuple(beside)))
