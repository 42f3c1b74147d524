"""The sections about what comes after training: inference over a tomogram, picking, evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict

from robpicker_jax.config.data_sections import Species
from robpicker_jax.config.field_types import STRICT, Count, Fraction, NonNegative, Positive, PositiveInt, about


@dataclass(frozen=True)
class InferenceConfig:
    """From tomogram to class probabilities, by overlapping tiles."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    tile: Annotated[PositiveInt | None, about("edge of the tiles, voxels; none: patches.size")] = None
    overlap_vox: Annotated[
        Count, about("overlap of neighbouring tiles, voxels; not given: two of the largest radius")
    ] = 20
    batch_size: Annotated[PositiveInt, about("tiles a forward pass on each device")] = 4
    blend: Annotated[
        Literal["average", "gaussian"],
        about("weights of overlapping tiles: a Gaussian about each tile's centre, or all the same (the paper's)"),
    ] = "gaussian"
    rotations: Annotated[
        Literal[1, 2, 4, 8],
        about(
            "orientations averaged: 2 half-turn about the tilt axis y, 4 all half-turns, 8 quarter-turns about z too"
        ),
    ] = 1

    def tile_edge(self, patch_size: int) -> int:
        """Edge of the tiles in voxels: `tile`, or where that is not set the patches' edge."""
        return self.tile or patch_size

    def with_tile(self, patch_size: int) -> InferenceConfig:
        """The section with the tiles' edge filled in."""
        return replace(self, tile=self.tile_edge(patch_size))


@dataclass(frozen=True)
class PickingConfig:
    """From class map to picks: clusters of the voxels of each class, and their centres of gravity."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    clustering: Annotated[
        str,
        about(
            "how voxels of a class become particles, by name: dbscan, components, mean_shift, dbscan_reference; from the "
            "probabilities of all classes: local_maxima, oks_nms, threshold_components"
        ),
    ] = "dbscan"
    clustering_options: Annotated[
        dict[str, Any],
        about(
            "the clustering's options; dbscan: radius_vox 1, min_neighbours 5; components: connectivity 1 (faces) to "
            "3 (corners), min_probability 0; of the others in docs/picking.md"
        ),
    ] = field(default_factory=dict, hash=False)
    min_cluster_vox: Annotated[
        PositiveInt | None,
        about("smallest cluster kept as a pick, voxels; none: a fifth of each species' sphere"),
    ] = None
    min_score: Annotated[Fraction, about("smallest score kept as a pick")] = 0.0
    min_scores: Annotated[
        dict[str, NonNegative], about("smallest score of a species' picks, by name, in place of min_score")
    ] = field(default_factory=dict, hash=False)
    thresholds: Annotated[
        str | None,
        about(
            "after training, the smallest score of each species by its F-beta on the meta (and validation) tomograms: "
            "best, or the published grid; none: min_scores as they are"
        ),
    ] = None
    threshold_options: Annotated[
        dict[str, Any], about("the rule's options; best: beta 1; grid: low 0.1, high 0.6, step 0.005, beta 1")
    ] = field(default_factory=dict, hash=False)
    edge_vox: Annotated[NonNegative, about("smallest distance of a pick from the volume's edge, voxels")] = 0.0
    min_distance_vox: Annotated[
        NonNegative | None,
        about("smallest distance between two picks of whatever class; none: the mean of their species' radii; 0: any"),
    ] = None
    max_picks: Annotated[PositiveInt | None, about("picks kept in each tomogram, best scores first; none: all")] = None

    def smallest_clusters(self, species: Sequence[Species]) -> list[int]:
        """Smallest cluster that is kept as a pick of class 1, 2, …, voxels.

        The species' own limit goes first, then `min_cluster_vox`. Without either it is a fifth of the sphere of the
        species' radius: fragments of a wrong class on a particle's rim are smaller, and particles are not.
        """
        return [entry.min_cluster_vox or self.min_cluster_vox or fifth_of_sphere(entry.radius_vox) for entry in species]

    def smallest_scores(self, species: Sequence[Species]) -> list[float]:
        """Smallest score of a pick of class 1, 2, …: the species' own of `min_scores`, else `min_score`."""
        return [self.min_scores.get(entry.name, self.min_score) for entry in species]

    def closest_picks(self, species: Sequence[Species]) -> list[float]:
        """What class 1, 2, … contributes to the smallest distance of two picks, which is the mean of both; voxels.

        Without `min_distance_vox` it is the radius: two particles of one species that lie nearer than their radius
        would each have its centre within the other.
        """
        if self.min_distance_vox is not None:
            return [self.min_distance_vox] * len(species)
        return [entry.radius_vox for entry in species]


def fifth_of_sphere(radius_vox: float) -> int:
    """A fifth of the voxels of a sphere, at least one."""
    return max(1, round(4 / 15 * math.pi * radius_vox**3))


@dataclass(frozen=True)
class EvaluationConfig:
    """How picks are matched with true particles."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rule: Annotated[
        Literal["mask", "tolerance", "czii", "czii_scorer", "robpicker", "deepict", "deepfinder", "shrec"],
        about(
            "inside a true particle's label; within a tolerance; CZII's half radius; or as a published scorer counts: "
            "CZII's, the published RobPicker's, DeePiCt's, DeepFinder's, SHREC 2019's"
        ),
    ] = "mask"
    tolerance_vox: Annotated[Positive, about("largest distance of a hit by tolerance, deepict, deepfinder, voxels")] = (
        10.0
    )
    one_to_one: Annotated[bool, about("each true particle counts once; off: the paper's literal rule")] = True
    beta: Annotated[Positive | None, about("beta of F-beta; none: 4 under CZII's rules, else 1")] = None
    weights: Annotated[
        dict[str, NonNegative] | None,
        about("weight of each species in the weighted mean, by name, 1 for others; none: CZII's own under czii_scorer"),
    ] = field(default=None, hash=False)
    choose_by: Annotated[str, about("validation score that chooses the best checkpoint, by name")] = "macro_f1"
