"""Every backbone equals its second implementation in PyTorch, with the same weights. Where PyTorch is installed."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.backbones import CASES, differences
from robpicker_jax.config import ModelConfig

TINY = {
    "deepfinder": (CASES["deepfinder"], 8),
    "deepict": (CASES["deepict, example"], 8),
    "flexunet": (
        ModelConfig(backbone="flexunet", widths=(4, 4, 6, 8, 8), backbone_options={"blocks": [1, 2, 1, 1]}),
        64,
    ),
    "residual_unet": (ModelConfig(backbone="residual_unet", widths=(4, 8, 8)), 8),
    "swin_unet": (ModelConfig(backbone="swin_unet", widths=(12, 24), backbone_options={"window": 2}), 16),
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", TINY)
def test_a_backbone_equals_its_pytorch_twin(name: str) -> None:
    model, edge = TINY[name]
    found = differences(model, edge=edge)
    assert found["running statistics"] < 1e-4
    assert found["batch statistics"] < 1e-4
    assert found["gradient"] < 1e-3
