"""The recipes of CONTRIBUTING.md, run as they are printed and then used by name, as a configuration would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def recipe(heading: str, registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a recipe; the name that it adds to the registry, which is as before after the test."""
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(heading + "\n")]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    before = dict(registry)
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "recipe"})
    (name,) = set(registry) - set(before)
    added = registry.pop(name)
    monkeypatch.setitem(registry, name, added)
    return name


@pytest.mark.slow
def test_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.config import TrainConfig
    from robpicker_jax.training.losses import LOSSES, build_loss

    name = recipe("A loss", LOSSES, monkeypatch)
    loss = build_loss(TrainConfig(loss=name, loss_options={"background": 0.5}))
    predicted = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3)))
    label = jax.nn.one_hot(jnp.zeros((2, 4, 4, 4), int), 3)
    values = loss(predicted, label)
    expected = np.mean((np.asarray(predicted) - np.asarray(label)) ** 2, axis=(1, 2, 3)) * [0.5, 1, 1]
    np.testing.assert_allclose(values.per_patch, expected.mean(axis=-1), rtol=1e-5)


@pytest.mark.slow
def test_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.config import ModelConfig
    from robpicker_jax.models.backbone import BACKBONES, build_backbone

    name = recipe("A backbone", BACKBONES, monkeypatch)
    backbone = build_backbone(ModelConfig(backbone=name, backbone_options={"features": 5}), 3)
    params, stats = backbone.init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (2, 6, 6, 6, 1))
    features, scores, _ = backbone.apply(params, stats, image, True)
    assert features.shape == (2, 6, 6, 6, backbone.features) == (2, 6, 6, 6, 5)
    assert scores.shape == (2, 6, 6, 6, 3)
    moved = image.at[0, 0, 0, 0].add(1.0)
    changed = np.argwhere(np.any(np.asarray(backbone.apply(params, stats, moved, True)[1] != scores), axis=-1))
    assert changed[:, 1:].max() <= backbone.receptive_field // 2
    assert backbone.work.operations > 2 * 27 * 5


def test_clustering(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.picking.clustering import CLUSTERINGS, build_clustering

    name = recipe("A clustering", CLUSTERINGS, monkeypatch)
    class_map = np.zeros((9, 9, 19), np.uint8)
    class_map[2:7, 2:7, 2:7] = 1
    class_map[2:7, 2:7, 12:17] = 1
    class_map[4, 4, 7:12] = 1  # a bridge between the two
    ((one,), (two,)) = (build_clustering(n, {})(class_map, None, [1]) for n in ("components", name))
    assert (one.count, two.count) == (1, 2)


def test_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.patches import PatchTomogram
    from robpicker_jax.patches.samplers import SAMPLERS, SamplerSettings
    from robpicker_jax.patches.tomogram_set import TomogramSet

    name = recipe("A sampler", SAMPLERS, monkeypatch)
    labels = np.repeat([1, 2], [90, 10])
    positions = np.random.default_rng(0).uniform(8, 24, (100, 3))
    volume = np.zeros((32, 32, 32), np.float32)
    tomogram = PatchTomogram("one", volume, Particles(positions, labels), volume.astype(np.uint8))
    draw = SAMPLERS[name](TomogramSet([tomogram], 8), SamplerSettings(0.0, 2))
    rng = np.random.default_rng(1)
    share = np.mean([draw(rng).label == 2 for _ in range(2000)])
    assert share == pytest.approx(np.sqrt(10) / (np.sqrt(10) + np.sqrt(90)), abs=0.04)


def test_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.patches.augmentation import AUGMENTATIONS, Augmenter

    name = recipe("An augmentation", AUGMENTATIONS, monkeypatch)
    augmenter = Augmenter([name], 4)
    drawn = augmenter.draw(np.random.default_rng(0))
    patch = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    on_host = augmenter.apply(patch, drawn, nearest=False)
    traced = jax.jit(lambda array, numbers: augmenter.apply(array, numbers, nearest=False))
    np.testing.assert_array_equal(on_host, traced(patch, drawn))
    np.testing.assert_allclose(on_host, patch * drawn[0])
    np.testing.assert_array_equal(augmenter.apply(patch, drawn, nearest=True), patch)


def test_validation_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from robpicker_jax.evaluation.validation import VALIDATION_METRICS

    name = recipe("A validation metric", VALIDATION_METRICS, monkeypatch)
    classes = [SimpleNamespace(rates=SimpleNamespace(f1=value)) for value in (0.8, 0.3)]
    assert VALIDATION_METRICS[name](SimpleNamespace(classes=classes)) == 0.3


def test_list_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
    from robpicker_jax.system.errors import InputError

    recipe("A list format", FORMATS, monkeypatch)
    particles = Particles(np.array([[1.5, 2.0, 3.25], [4.0, 5.0, 6.0]]), [1, 2])
    write_annotations(tmp_path / "a.semi", particles)
    again = read_annotations(tmp_path / "a.semi")
    np.testing.assert_allclose(again.positions_vox, particles.positions_vox)
    np.testing.assert_array_equal(again.labels, particles.labels)
    (tmp_path / "bad.semi").write_text("1;2\n")
    with pytest.raises(InputError, match="four numbers"):
        read_annotations(tmp_path / "bad.semi")


def test_picker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from robpicker_jax.picking.inference import ArrayReader
    from robpicker_jax.picking.picker import PICKERS, build_picker

    name = recipe("A picker", PICKERS, monkeypatch)
    density = np.zeros((24, 30, 36), np.float32)
    density[8, 10, 12], density[16, 20, 24] = 500, 900
    picker = build_picker(name, tmp_path, [])
    mask = np.ones(density.shape, bool)
    np.testing.assert_array_equal(
        picker.pick(ArrayReader(density), mask=mask).positions_vox, [[24, 20, 16], [12, 10, 8]]
    )
    mask[16:] = False
    found = picker.with_min_scores([2.0]).pick(ArrayReader(density), mask=mask)
    np.testing.assert_array_equal(found.positions_vox, [[12, 10, 8]])
    assert picker.memory(density.shape).host > density.nbytes


def test_hypergradient_method(monkeypatch: pytest.MonkeyPatch) -> None:
    from robpicker_jax.bilevel import METHODS, accepts, check_optimizer, configured_options, hypergradient
    from tests.bilevel.bilevel_problems import quadratic, relative_error

    name = recipe("A hypergradient method", METHODS, monkeypatch)
    problem = quadratic(0.1)
    found = hypergradient(name, problem.case.problem)(*problem.case.arguments()).hypergradient
    expected = problem.b.T @ (np.asarray(problem.case.params) - problem.target)
    assert relative_error(found, expected) < 1e-5
    assert accepts(name, "mean")
    assert configured_options(name, {}, key="train.hypergradient_options") == {}
    check_optimizer(optax.lion(1e-3), {"a": jnp.ones(4)}, method=name)  # refused where the update is differentiated


def test_study(tmp_path: Path) -> None:
    from benchmarks.paper.study import FOLDER, load_study

    section = PAGE.read_text(encoding="utf-8").split("### A study\n")[1]
    (text,) = re.findall(r"^```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    for base in FOLDER.glob("base_*.yaml"):
        (tmp_path / base.name).write_bytes(base.read_bytes())
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    study = load_study("mine", "cpu", tmp_path)
    sizes = [study.config(run).patches.size for run in study.runs([0])]
    assert sizes == [24, 32]
