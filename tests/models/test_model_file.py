"""The trained model's file: round trip, damage, foreign files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from robpicker_jax.config import DataConfig, InferenceConfig, ModelConfig, PickingConfig, Species
from robpicker_jax.models.model_file import _entry, load_model_file, save_model
from robpicker_jax.models.trained_model import ModelCard, TrainedModel, build_network, portable
from robpicker_jax.system.errors import InputError

CARD = ModelCard(
    model=ModelConfig(preset="custom", widths=(2, 3), convs_per_block=1, bottleneck_convs=1, decoder_convs=1),
    data=DataConfig(species=(Species("µ ribosome", 5.5, min_cluster_vox=7), Species("b", 3.0)), invert_contrast=True),
    inference=InferenceConfig(tile=16, overlap_vox=4, blend="gaussian"),
    picking=PickingConfig(clustering="components", clustering_options={"connectivity": 2}, max_picks=9),
    voxel_size_angstrom=13.48,
    step=120,
    score=0.123456789012345678,
)


def make(card: ModelCard = CARD, seed: int = 0) -> TrainedModel:
    """A model with random parameters; some of them are the floats that are easily lost."""
    params, stats = build_network(card).init(jax.random.key(seed))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    params["classes"]["bias"] = jnp.array([-0.0, 1e-45, np.finfo(np.float32).max], jnp.float32)
    return TrainedModel(params, stats, card)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's file."""
    path = tmp_path_factory.mktemp("model") / "model.rpk"
    save_model(path, make())
    return path


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    """Bit by bit."""
    assert one.card == other.card
    assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
    assert jax.tree.structure(one.batch_stats) == jax.tree.structure(other.batch_stats)
    for a, b in zip(
        jax.tree.leaves((one.params, one.batch_stats)), jax.tree.leaves((other.params, other.batch_stats)), strict=True
    ):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_round_trip_keeps_every_bit(batch_norm: bool, tmp_path: Path) -> None:
    model = make(replace(CARD, model=replace(CARD.model, batch_norm=batch_norm)))
    assert bool(model.batch_stats) == batch_norm
    save_model(tmp_path / "model.rpk", model)
    back = load_model_file(tmp_path / "model.rpk")
    assert_same(model, back)
    save_model(tmp_path / "again.rpk", back)
    assert (tmp_path / "again.rpk").read_bytes() == (tmp_path / "model.rpk").read_bytes()
    tiles = np.random.default_rng(0).normal(size=(2, 16, 16, 16, 1)).astype(np.float32)
    before, after = (np.asarray(each.predict(each.params, each.batch_stats, tiles)) for each in (model, back))
    np.testing.assert_array_equal(before, after)
    np.testing.assert_allclose(before.sum(axis=-1), 1, rtol=1e-5)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_an_input_error_and_nothing_else(data: st.DataObject, written: Path) -> None:
    whole = written.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 2000), label="position")
    kind = data.draw(st.sampled_from(["cut", "change", "insert", "remove", "zero"]), label="kind")
    piece = data.draw(st.binary(min_size=1, max_size=9), label="piece")
    match kind:
        case "cut":
            damaged = whole[:position]
        case "change":
            damaged = whole[:position] + piece + whole[position + len(piece) :]
        case "insert":
            damaged = whole[:position] + piece + whole[position:]
        case "remove":
            damaged = whole[:position] + whole[position + len(piece) :]
        case _:
            damaged = whole[:position] + bytes(len(whole) - position)
    path = written.with_name("damaged.rpk")
    path.write_bytes(damaged)
    refused = None
    try:
        found = load_model_file(path)
    except InputError as error:
        refused = error
    if refused is None:
        assert_same(found, load_model_file(written))  # a change that says the same, such as other spaces in the header
    else:
        assert refused.where == str(path)
        assert refused.fix


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200))
@example(content=b"")
@example(content=(2**40).to_bytes(8, "little") + b"{}")
@example(content=(2).to_bytes(8, "little") + b"{}")
def test_a_foreign_file_is_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("foreign") / "model.rpk"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_model_file(path)
    assert caught.value.where == str(path)


def rewritten(path: Path, target: Path, change: Any) -> Path:
    """The file with other contents and a checksum that fits them, as a newer or faulty program might write it."""
    with safe_open(path, framework="numpy") as file:
        entry = json.loads(file.metadata()["robpicker_jax"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(entry["card"], tensors)
    save_file(tensors, target, metadata={"robpicker_jax": json.dumps(_entry(entry["card"], tensors))})
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card, tensors: tensors.pop("params/classes/bias"), "lacks the array params/classes/bias"),
        (lambda card, tensors: tensors.update({"params/more": np.zeros(2, np.float32)}), "holds an array params/more"),
        (
            lambda card, tensors: tensors.update({"params/classes/bias": np.zeros(4, np.float32)}),
            r"params/classes/bias is float32 \(4,\), the network's is float32 \(3,\)",
        ),
        (
            lambda card, tensors: tensors.update({"params/classes/bias": np.zeros(3, np.float64)}),
            "params/classes/bias is float64",
        ),
        (lambda card, tensors: card["model"].update(widths=[3, 3]), "the network's is"),
        (lambda card, tensors: card.update(depth=3), "depth: unknown key.*written by version"),
        (lambda card, tensors: card.pop("step"), "step: missing"),
        (lambda card, tensors: card["inference"].update(tile=15), "15 is not divisible"),
        (lambda card, tensors: card["inference"].update(tile=None), "no edge of the tiles"),
    ],
)
def test_contents_that_do_not_belong_together(change: Any, message: str, written: Path, tmp_path: Path) -> None:
    path = rewritten(written, tmp_path / "model.rpk", change)
    with pytest.raises(InputError, match=message) as caught:
        load_model_file(path)
    assert caught.value.where == str(path)


def test_a_safetensors_file_of_another_program(tmp_path: Path) -> None:
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="is no trained model of this package"):
        load_model_file(tmp_path / "other.safetensors")
    newer = {"robpicker_jax": json.dumps({"format": 2, "card": {"package_version": "7.1"}, "sha256": ""})}
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "newer.rpk", metadata=newer)
    with pytest.raises(InputError, match=r"format 2, this version reads 1; install version 7\.1"):
        load_model_file(tmp_path / "newer.rpk")
    with pytest.raises(InputError, match="no such file"):
        load_model_file(tmp_path / "none.rpk")
    with pytest.raises(InputError, match="not a file"):
        load_model_file(tmp_path)


def test_a_failed_write_leaves_the_former_file(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robpicker_jax.models.model_file.save_file", fail)
    with pytest.raises(InputError, match="No space left"):
        save_model(written, make(seed=1))
    assert written.read_bytes() == before
    assert not list(written.parent.glob(".tmp-*"))


def test_overrides_change_how_a_model_is_applied_and_nothing_else() -> None:
    model = make()
    other = model.with_overrides(
        ["picking.min_score=0.5", "data.species.1.min_cluster_vox=3", "inference.tile=32", "parallel.devices=1"]
    )
    assert (other.card.picking.min_score, other.card.inference.tile, other.devices) == (0.5, 32, 1)
    assert other.card.data.species[1].min_cluster_vox == 3
    assert other.card.data.species[0] == model.card.data.species[0]
    assert other.card.model == model.card.model
    assert other.params is model.params
    for override, message in (
        ("model.widths=[2,2]", "a trained model cannot change this"),
        ("train.steps=3", "a trained model cannot change this"),
        ("data.species=[]", "knows 2 species, not 0"),
        ("inference.tile=15", "use 14 or 16"),
        ("inference.overlap_vox=16", "smaller than the tile"),
        ("picking.min_score=high", "picking.min_score"),
    ):
        with pytest.raises(InputError, match=message):
            model.with_overrides([override])


def test_paths_of_the_training_machine_are_left_out() -> None:
    species = Species("a", 3.0, density="/home/me/a.mrc", mask="/home/me/b.mrc", molecular_weight_kda=500.0)
    data = DataConfig(dir="/home/me/data", species=(species,), annotation_options={"tomograms": "/home/me/t.star"})
    assert "/home/me" not in repr(portable(data))
    assert portable(data).species == (Species("a", 3.0, molecular_weight_kda=500.0),)
