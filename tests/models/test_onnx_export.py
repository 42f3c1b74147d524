"""The network as an ONNX graph, run by onnxruntime, against the network itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax.commands import export
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, InferenceConfig, ModelConfig, PickingConfig, Species
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network
from robpicker_jax.system.errors import InputError

TINY: dict[str, Any] = {"widths": (3, 4, 5), "convs_per_block": 1, "bottleneck_convs": 1, "decoder_convs": 1}
CASES = {
    "unet": ModelConfig(preset="custom", **TINY),
    "unet without batch norm": ModelConfig(preset="custom", batch_norm=False, **TINY),
    "deepfinder": ModelConfig(backbone="deepfinder"),
    "deepict": ModelConfig(backbone="deepict"),
    "flexunet": ModelConfig(backbone="flexunet"),
    "residual_unet": ModelConfig(backbone="residual_unet", size="small"),
    "swin_unet": ModelConfig(backbone="swin_unet", size="small"),
}


def trained(model: ModelConfig, tile: int = 32) -> TrainedModel:
    """A model with random parameters and statistics."""
    card = ModelCard(
        model=model,
        data=DataConfig(species=(Species("a", 5.0), Species("b", 3.0))),
        inference=InferenceConfig(tile=tile, overlap_vox=4),
        picking=PickingConfig(),
        voxel_size_angstrom=10.0,
        step=1,
        score=None,
    )
    params, stats = build_network(card).init(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.02 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    stats = jax.tree.map(lambda leaf: leaf + rng.uniform(0, 0.5, leaf.shape).astype(np.float32), stats)
    return TrainedModel(params, stats, card)


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name.startswith("unet") else pytest.mark.slow) for name in CASES]
)
def test_onnxruntime_computes_what_the_network_computes(case: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="ONNX is not installed (extra onnx)")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from robpicker_jax.models.onnx_export import save_onnx

    model = trained(CASES[case], 16 if case.startswith("unet") else 32)
    save_onnx(tmp_path / "network.onnx", model)
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    assert (source.name, target.name) == ("densities", "probabilities")
    tile = np.random.default_rng(2).standard_normal(source.shape).astype(np.float32)
    (found,) = session.run(None, {"densities": tile})
    expected = np.asarray(model.predict(model.params, model.batch_stats, tile))
    assert found.shape == expected.shape
    assert expected.std() > 1e-3  # not constant
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    card = json.loads(session.get_modelmeta().custom_metadata_map["robpicker_jax"])
    assert [species["name"] for species in card["data"]["species"]] == ["a", "b"]


def test_a_run_is_exported_as_a_network(tiny_run: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed (extra onnx)")
    assert call(export.main, [str(tiny_run), str(tmp_path / "network.onnx"), "--licence", "CC0-1.0"]) == 0
    found = onnx.load(tmp_path / "network.onnx")
    properties = {entry.key: entry.value for entry in found.metadata_props}
    assert json.loads(properties["robpicker_jax"])["provenance"]["licence"] == "CC0-1.0"


def test_an_operation_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="ONNX is not installed (extra onnx)")
    from robpicker_jax.models import onnx_export

    monkeypatch.delitem(onnx_export._TRANSLATIONS, "exp")
    with pytest.raises(InputError, match="operation exp is not translated"):
        onnx_export.onnx_graph(trained(replace(CASES["unet"]), 16))


def test_without_the_package_the_extra_is_named(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    assert call(export.main, [str(tiny_run), str(tmp_path / "network.onnx")]) == 2
    assert "pip install 'robpicker-jax[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "network.onnx").exists()
