"""Coordinates → label maps: spheres or rotated shapes, of a volume or a region."""

from robpicker_jax.labels.clean_map import clean_labels
from robpicker_jax.labels.maker import (
    LabelMaker,
    PointLabels,
    Region,
    ShapeLabels,
    SphereLabels,
    instance_labels,
    label_maker,
    shape_labels,
    sphere_labels,
)

__all__ = [
    "LabelMaker",
    "PointLabels",
    "Region",
    "ShapeLabels",
    "SphereLabels",
    "clean_labels",
    "instance_labels",
    "label_maker",
    "shape_labels",
    "sphere_labels",
]
