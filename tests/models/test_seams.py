"""A backbone that is registered from outside of the package and trained through the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robpicker_jax.config import ModelConfig, load_config
from robpicker_jax.models import BACKBONES, Backbone, Convolution, Work, build_backbone, work_of
from robpicker_jax.models.conv import conv3d
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.workload import count_parameters, forward_work, step_operations
from tests.steps import noise_batches
from tests.tiny import write_tiny


@dataclass(frozen=True)
class TwoLayers:
    """A convolution of `size`³, ReLU, and a 1³ convolution to the classes."""

    features: int
    size: int
    n_classes: int
    stride: int = 1
    output_stride: int = 1
    head: Literal["softmax", "sigmoid"] = "softmax"
    uses_dropout: bool = False

    @property
    def receptive_field(self) -> int:
        return self.size

    @property
    def work(self) -> Work:
        layers = (self.size**3, 1, self.features, 0), (1, self.features, self.n_classes, 0)
        return work_of(Convolution(*layer) for layer in layers)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        one, two = jax.random.split(key)
        kernels = {
            "first": jax.random.normal(one, (self.size,) * 3 + (1, self.features)) / self.size**1.5,
            "classes": jax.random.normal(two, (self.features, self.n_classes)),
        }
        return kernels, {}

    def apply(
        self, params: Any, batch_stats: Any, image: jax.Array, train: bool, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, Any]:
        features = jax.nn.relu(conv3d(image, params["first"]))
        return features, features @ params["classes"], batch_stats


def two_layers(
    model: ModelConfig, n_classes: int, *, device_axis: str | None = None, features: int = 4, size: int = 3
) -> Backbone:
    """Its builder, with two options."""
    return TwoLayers(features, size, n_classes)


def test_a_backbone_from_outside_trains_and_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "two_layers", two_layers)
    overrides = ["model.backbone=two_layers", "model.backbone_options={features: 5}"]
    overrides += ["patches.size=9", "patches.shift_vox=2", "inference.tile=null", "inference.overlap_vox=2"]
    config = load_config(write_tiny(tmp_path / "tiny.yaml"), overrides)
    experiment = build_experiment(config)  # a stride of 1 allows an odd patch, which the tiny U-Net refuses
    rng = np.random.default_rng(0)
    state, before = experiment.state, jax.tree.map(np.asarray, experiment.state.params)
    for _ in range(2):
        state, metrics = experiment.step(state, *noise_batches(experiment, rng))
    assert state.params["first"].shape == (3, 3, 3, 1, 5)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), state.params, before)))
    assert 0 < float(metrics.hypergradient_norm) < np.inf
    assert count_parameters(config.model, config.train, len(config.data.species) + 1)["backbone"] == 27 * 5 + 5 * 3
    # What the plan counts is the backbone's own word: 2·taps·a·b of each layer, three outputs kept.
    assert forward_work(config.model, len(config.data.species) + 1) == (2 * (27 * 5 + 5 * 3), 3 * (5 + 3))
    counted = step_operations(
        config.model, config.train, n_classes=len(config.data.species) + 1, patch_size=config.patches.size
    )
    assert counted == 2 * (27 * 5 + 5 * 3) * 9**3 * 8 * config.train.batch_size
    batch_stats = state.network_state.batch_stats
    _, logits, _ = experiment.networks.segment(state.params, batch_stats, jnp.zeros((1, 7, 7, 7, 1)), train=False)
    assert logits.shape == (1, 7, 7, 7, 3)


def test_options_of_a_backbone_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "two_layers", two_layers)
    for options, reason in (
        ({"depth": 3}, "'depth'; its options are features, size"),
        ({"features": "many"}, "features: .*integer.*'many'"),
        ({"device_axis": "data"}, "'device_axis'"),
    ):
        with pytest.raises(InputError, match=f"model.backbone_options.*{reason}"):
            build_backbone(ModelConfig(backbone="two_layers", backbone_options=options), 3)
    with pytest.raises(InputError, match=r"known: unet, .*two_layers"):
        build_backbone(ModelConfig(backbone="three_layers_that_nobody_has"), 3)


def test_the_unet_declares_the_work_of_its_convolutions() -> None:
    model = ModelConfig(
        preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1, batch_norm=False
    )
    unet = build_backbone(model, 4)
    full = 27 * 1 * 2 + 3 * 2 + 27 * (2 + 2) * 2 + 2 * 4  # encoder, transposed convolution, decoder, classes
    assert unet.work.operations == 2 * (full + 27 * 2 * 3 / 8)  # the bottleneck has an eighth of the voxels
    assert unet.work.kept == 3 * (2 + 2 + 2 + 4 + 3 / 8)
