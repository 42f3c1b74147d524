"""Runs in a process of its own, with the given number of virtual CPU devices: segments noise with a small U-Net.

python inference_worker.py OUT.npz
"""

from __future__ import annotations

import sys
from dataclasses import replace

import jax
import numpy as np

from robpicker_jax.config import Config, DataConfig, InferenceConfig, ModelConfig, ParallelConfig, Species, TrainConfig
from robpicker_jax.picking.inference import prediction_mesh
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.export import trained_model


def main() -> None:
    """Segment, plainly and with every option, and write the results."""
    config = Config(
        data=DataConfig(species=(Species("a", 3), Species("b", 3))),
        model=ModelConfig(preset="custom", widths=(3, 4), convs_per_block=1, bottleneck_convs=0, decoder_convs=1),
        train=TrainConfig(variant="supervised", batch_size=4),
        inference=InferenceConfig(tile=8, overlap_vox=3, batch_size=2),
        parallel=ParallelConfig(devices=1),
    )
    experiment = build_experiment(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype), experiment.state.params
    )
    state = experiment.state._replace(params=params)
    volume = rng.normal(size=(17, 22, 30)).astype(np.float32)
    devices = len(jax.devices())
    model = replace(trained_model(experiment, state), devices=devices)
    plain = ModelPicker(model).segment(volume, keep_scores=True)
    overrides = ["inference.blend=gaussian", "inference.rotations=4", "inference.batch_size=3"]
    other = ModelPicker(replace(model.with_overrides(overrides), devices=devices)).segment(volume, keep_scores=True)
    np.savez(
        sys.argv[1],
        devices=prediction_mesh(devices).size,
        classes=plain.classes,
        scores=plain.scores,
        other=other.scores,
    )


if __name__ == "__main__":
    main()
