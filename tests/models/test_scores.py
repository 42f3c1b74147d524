"""Class probabilities of both kinds of heads, and outputs coarser than the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special

from robpicker_jax.config import ModelConfig, load_config
from robpicker_jax.models import BACKBONES, Backbone, Work, class_probabilities
from robpicker_jax.models.scores import upsampled, with_background
from robpicker_jax.models.trained_model import ModelCard, TrainedModel
from robpicker_jax.training.experiment import build_experiment
from tests.steps import noise_batches
from tests.tiny import write_tiny


@dataclass(frozen=True)
class Blocks:
    """A linear map of each block of `stride`³ voxels: scores at a coarser resolution than the image."""

    n_classes: int
    head: Literal["softmax", "sigmoid"]
    stride: int = 2
    output_stride: int = 2
    features: int = 3
    receptive_field: int = 2
    uses_dropout: bool = False

    @property
    def work(self) -> Work:
        return Work(2.0 * self.features, 1.0)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        one, two = jax.random.split(key)
        outputs = self.n_classes - (self.head == "sigmoid")
        return {"first": jax.random.normal(one, (8, 3)), "classes": jax.random.normal(two, (3, outputs))}, {}

    def apply(
        self, params: Any, batch_stats: Any, image: jax.Array, train: bool, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, Any]:
        n, z, y, x, _ = image.shape
        blocks = image.reshape(n, z // 2, 2, y // 2, 2, x // 2, 2).transpose(0, 1, 3, 5, 2, 4, 6)
        features = jnp.tanh(blocks.reshape(n, z // 2, y // 2, x // 2, 8) @ params["first"])
        scores = features @ params["classes"]
        return features, with_background(scores) if self.head == "sigmoid" else scores, batch_stats


def test_upsampling_is_trilinear_with_voxels_as_cubes() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
    at = np.meshgrid(*[(np.arange(2 * n) + 0.5) / 2 - 0.5 for n in (3, 4, 5)], indexing="ij")
    for sample in range(2):
        for channel in range(2):
            expected = ndimage.map_coordinates(values[sample, ..., channel], at, order=1, mode="nearest")
            found = upsampled(jnp.asarray(values), 2)[sample, ..., channel]
            np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(upsampled(jnp.asarray(values), 1), values)


def test_a_sigmoid_head_finds_a_species_where_its_probability_is_above_one_half() -> None:
    species = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    probabilities = np.asarray(class_probabilities(with_background(jnp.asarray(species)), "sigmoid"))
    np.testing.assert_allclose(probabilities[:, 1:], special.expit(species), rtol=1e-5)
    np.testing.assert_allclose(probabilities[:, 0], 1 - special.expit(species).max(1), rtol=1e-4)
    expected = np.where((species > 0).any(1), species.argmax(1) + 1, 0)
    np.testing.assert_array_equal(probabilities.argmax(1), expected)


@pytest.mark.parametrize("head", ["softmax", pytest.param("sigmoid", marks=pytest.mark.slow)])
def test_a_backbone_of_coarser_output_trains_and_segments_at_full_resolution(
    head: Literal["softmax", "sigmoid"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(model: ModelConfig, n_classes: int, *, device_axis: str | None = None) -> Backbone:
        return Blocks(n_classes, head)

    monkeypatch.setitem(BACKBONES, "blocks", build)
    overrides = ["model.backbone=blocks", "patches.size=8", "patches.shift_vox=2", "inference.tile=null"]
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), [*overrides, "inference.overlap_vox=2"])
    experiment = build_experiment(config)
    rng = np.random.default_rng(0)
    state, metrics = experiment.step(experiment.state, *noise_batches(experiment, rng))
    assert 0 < float(metrics.hypergradient_norm) < np.inf
    image = jnp.asarray(rng.normal(size=(1, 8, 8, 8, 1)).astype(np.float32))
    features, scores, _ = experiment.networks.segment(state.params, {}, image, train=False)
    assert (features.shape, scores.shape) == ((1, 8, 8, 8, 3), (1, 8, 8, 8, 3))
    coarse = Blocks(3, head).apply(state.params, {}, image, False)[1]
    np.testing.assert_allclose(scores, upsampled(coarse, 2), atol=1e-6)
    expected = special.softmax(scores, -1) if head == "softmax" else special.expit(scores)
    np.testing.assert_allclose(experiment.networks.probabilities(scores), expected, atol=1e-5)
    inference = replace(config.inference, tile=8)
    card = ModelCard(config.model, config.data, inference, config.picking, None, step=1, score=None)
    np.testing.assert_allclose(
        TrainedModel(state.params, {}, card).predict(state.params, {}, image), expected, atol=1e-5
    )
