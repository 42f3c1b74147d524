"""A trained model: the segmentation network's parameters and all that is needed to apply them to a tomogram.

It holds no optimiser's state and no meta network. As a file (`model.rpk`, see `model_file`) it is all that a colleague
needs to pick with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, cast

import jax
from annotated_types import Gt, Lt
from pydantic import ConfigDict

from robpicker_jax.config import (
    DataConfig,
    InferenceConfig,
    ModelConfig,
    ParallelConfig,
    PickingConfig,
    Species,
    SplitsConfig,
    apply_overrides,
    as_plain_values,
    validated,
    with_radii,
)
from robpicker_jax.datasets.densities import DensityStatistics
from robpicker_jax.models.backbone import BACKBONES, Backbone, build_backbone, check_edge
from robpicker_jax.models.provenance import Provenance
from robpicker_jax.models.scores import FullResolution, class_probabilities
from robpicker_jax.system.compilation import jit
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.version import __version__

Tree = Any

VOXEL_SIZE_TOLERANCE = 0.02
"""Largest relative difference of a tomogram's voxel size from that of the training tomograms, unless a model says another."""


@dataclass(frozen=True)
class ModelCard:
    """What a trained model is, and how it is applied unless the user says otherwise.

    Attributes:
        model: the network's section of the configuration.
        data: species in the order of their class labels, contrast (`invert_contrast`) and normalisation of the
            tomograms, and the voxel size for tomograms whose files do not tell it. Paths are left out.
        inference: tiles and their overlap; the tile's size is always given.
        picking: from class map to picks.
        voxel_size_angstrom: of the tomograms it was trained on, Å; None where it was not known.
        step: the training step that the parameters are from.
        score: their validation score (`score_name`); None where there was no validation.
        score_name: which score that is.
        densities: scale and skewness of the training tomograms' densities as the network saw them; None: not known.
        voxel_size_tolerance: largest relative difference of a tomogram's voxel size from that of the training tomograms.
        provenance: where the model comes from and what it is worth, as `export` found it; None: a run's own file.
        package_version: the version of this package that wrote the model.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    model: ModelConfig
    data: DataConfig
    inference: InferenceConfig
    picking: PickingConfig
    voxel_size_angstrom: float | None
    step: int
    score: float | None
    score_name: str = "macro_f1"
    densities: DensityStatistics | None = None
    voxel_size_tolerance: Annotated[float, Gt(0), Lt(1)] = VOXEL_SIZE_TOLERANCE
    provenance: Provenance | None = None
    package_version: str = __version__

    @property
    def n_classes(self) -> int:
        """Species and background."""
        return len(self.data.species) + 1

    @property
    def class_names(self) -> list[str]:
        """Names of the species, that of label 1 first."""
        return [species.name for species in self.data.species]


@dataclass(frozen=True)
class _Applied:
    """What a user may override when a model is applied: everything but the network itself."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    data: DataConfig
    inference: InferenceConfig
    picking: PickingConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Parameters and batch statistics of a segmentation network, with their card.

    Attributes:
        params: the network's parameters, a nested dictionary of float32 arrays.
        batch_stats: running means and variances of batch normalisation; empty without it.
        card: what the model is.
        devices: how many of this process's devices share the work; None: all of them.
    """

    params: Tree
    batch_stats: Tree
    card: ModelCard
    devices: int | None = None

    @property
    def predict(self) -> Callable[[Tree, Tree, Any], jax.Array]:
        """Compiled (params, batch_stats, tiles (n, z, y, x, 1)) → class probabilities (n, z, y, x, c), float32."""
        return _compiled(
            self.card.model, self.card.n_classes, cast("Hashable", BACKBONES.get(self.card.model.backbone))
        )

    def with_overrides(self, overrides: Sequence[str]) -> TrainedModel:
        """The model, applied in another way.

        Args:
            overrides: "dotted.key=value" strings of the sections data, inference, picking and parallel, as on the
                command line: `picking.min_score=0.5`, `inference.overlap_vox=32`.

        Raises:
            InputError: an unknown key, an impossible value, or one that would make it another model: a field of the
                network, or the number of its species.
        """
        if not overrides:
            return self
        card = self.card
        for override in overrides:
            section = override.partition(".")[0]
            if section not in _sections():
                raise InputError(
                    "a trained model cannot change this",
                    where=override.partition("=")[0],
                    fix=f"override {', '.join(_sections())} alone, or train anew",
                )
        given = as_plain_values(_Applied(card.data, card.inference, card.picking))
        size = card.voxel_size_angstrom or card.data.voxel_size_angstrom
        wanted = with_radii(apply_overrides(given, overrides), "", stated=("data.voxel_size_angstrom", size))
        changed = validated(_Applied, wanted, "")
        if len(changed.data.species) != len(card.data.species):
            raise InputError(
                f"the model knows {len(card.data.species)} species, not {len(changed.data.species)}",
                where="data.species",
                fix="train anew",
            )
        changed_card = replace(card, data=changed.data, inference=changed.inference, picking=changed.picking)
        check_tiles(changed_card)
        return replace(self, card=changed_card, devices=changed.parallel.devices)


def portable(data: DataConfig) -> DataConfig:
    """The section `data` without what belongs to one machine or to training: paths, and how lists are read."""
    species = tuple(
        Species(
            entry.name,
            entry.radius_vox,
            molecular_weight_kda=entry.molecular_weight_kda,
            min_cluster_vox=entry.min_cluster_vox,
        )
        for entry in data.species
    )
    copick = replace(data.copick, train=(), meta=(), val=(), test=(), user=None, session=None, prefer=())
    return replace(
        data,
        dir=None,
        species=species,
        annotation_options={},
        name_pattern=None,
        copick=copick,
        splits=SplitsConfig(),
        lists=(),
        volumes=None,
    )


def check_tiles(card: ModelCard) -> None:
    """Refuse tiles that the network cannot take.

    Raises:
        InputError: no tile, a tile whose edge the network's stride does not divide, or an overlap that leaves no step.
    """
    tile = card.inference.tile
    if tile is None:
        raise InputError("no edge of the tiles is given", where="inference.tile", fix="give it in voxels")
    check_edge(tile, build_network(card).stride, where="inference.tile")
    if card.inference.overlap_vox >= tile:
        raise InputError(f"must be smaller than the tile ({tile})", where="inference.overlap_vox")


def build_network(card: ModelCard) -> Backbone:
    """The segmentation network that a card describes, without parameters.

    Raises:
        InputError: a backbone or an option of it that is not known here.
    """
    return build_backbone(card.model, card.n_classes)


def _sections() -> list[str]:
    return [section.name for section in fields(_Applied)]


@functools.lru_cache(maxsize=8)
def _compiled(model: ModelConfig, n_classes: int, builder: Hashable) -> Callable[[Tree, Tree, Any], jax.Array]:
    """The compiled network, once for all models of one shape; `builder` tells apart what was registered under a name."""
    network = build_backbone(model, n_classes)
    segment = FullResolution(network)

    def predict(params: Tree, batch_stats: Tree, tiles: Any) -> jax.Array:
        _, scores, _ = segment(params, batch_stats, tiles, train=False)
        return class_probabilities(scores, network.head)

    compiled = jit(predict)
    return compiled
