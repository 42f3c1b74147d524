"""Input: device and host form give the same batches, files are read as arrays are, scalings are found once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from robpicker_jax import parallel
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets.loading import load_tomogram
from robpicker_jax.datasets.mapped import MappedDensity
from robpicker_jax.training.data import TrainingData, lives_on_devices, load_training_data
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.trainer import SilentLog, next_batch
from tests.tiny import write_tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny configuration, with two training tomograms of different sizes and two inner steps."""
    folder = tmp_path_factory.mktemp("input")
    path = write_tiny(folder / "tiny.yaml")
    from robpicker_jax.commands import simulate

    assert call(simulate.main, ["--config", str(path), "--out", str(folder / "data")]) == 0
    other = ["--simulation.shape_zyx=[40,36,44]", "--simulation.seed=3"]
    assert call(simulate.main, ["--config", str(path), "--out", str(folder / "other"), *other]) == 0
    for file in (folder / "other" / "train").iterdir():
        file.rename(folder / "data" / "train" / file.name.replace("train_000", "train_001"))
    return load_config(path, [f"data.dir={folder / 'data'}", "train.inner_steps=2", "train.steps=3"])


def loaded(config: Config, **patches: object) -> TrainingData:
    """The data set in the form that the settings ask for."""
    settings = replace(config, patches=replace(config.patches, **patches))  # type: ignore[arg-type]
    return load_training_data(settings, Path(config.data.dir or ""))


def batches(data: TrainingData, steps: int = 3) -> list[tuple[Batch, Batch]]:
    """The first steps' batches, on the host."""
    ahead = data.batches(parallel.data_mesh())(0)
    return [jax.device_get(next(ahead)) for _ in range(steps)]


@pytest.mark.parametrize(
    "turns",
    [{}, {"rotate_180": False}, {"flip": True, "rotate_z90": True}],
    ids=["half-turns", "none", "mirrors and quarter-turns"],
)
@pytest.mark.parametrize("labels", ["stored", "drawn"])
def test_device_and_host_form_give_the_same_batches(config: Config, turns: dict[str, bool], labels: str) -> None:
    device = loaded(config, input="device", labels=labels, **turns)
    host = loaded(config, input="host", labels="drawn" if labels == "stored" else "stored", threads=3, **turns)
    assert device.stacks
    assert not host.stacks
    assert isinstance(host.train[0].density, MappedDensity)
    for one, other in zip(batches(device), batches(host), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert one[0].image.shape == (2, 2, 16, 16, 16, 1)
        assert one[1].image.shape == (2, 16, 16, 16, 1)


def test_rotations_by_interpolation_agree_to_rounding(config: Config) -> None:
    turns = {"rotate_any": True, "flip": True}
    device, host = loaded(config, input="device", **turns), loaded(config, input="host", **turns)
    differing = []
    for one, other in zip(batches(device), batches(host), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(mine.image, theirs.image, atol=2e-4)
            np.testing.assert_array_equal(mine.center_class, theirs.center_class)
            differing.append((np.asarray(mine.label) != theirs.label).mean())
    assert np.mean(differing) < 1e-4


def test_supervised_training_places_no_meta_tomogram(config: Config) -> None:
    plain = replace(config, train=replace(config.train, variant="supervised"))
    device, host = loaded(plain, input="device"), loaded(plain, input="host")
    assert device.resident_bytes == device.stacks["train"].density.nbytes * 5 // 4 + 2 * 3 * 4
    for one, other in zip(batches(device, 1), batches(host, 1), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert one[1].image.shape == (0, 16, 16, 16, 1)


def test_every_form_reads_what_load_tomogram_has(config: Config) -> None:
    for form in ("device", "host"):
        data = loaded(config, input=form)
        for tomogram in (*data.train, *data.meta):
            whole = load_tomogram(tomogram.tomogram, config.data).density
            np.testing.assert_array_equal(np.asarray(tomogram.density), whole)
            box = (slice(3, 20), slice(1, 9), slice(10, 30))
            np.testing.assert_array_equal(tomogram.density[box], whole[box])


def test_scalings_are_found_once_and_again_where_a_file_has_changed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = replace(config, patches=replace(config.patches, input="host"))
    path, folder = tmp_path / "scalings.json", Path(config.data.dir or "")
    first = load_training_data(host, folder, scalings=path)
    assert len(json.loads(path.read_text())) == 3
    from robpicker_jax.training import data as training_data

    real, calls = training_data.stream_tomogram, []
    monkeypatch.setattr(training_data, "stream_tomogram", lambda *args: calls.append(args[0].name) or real(*args))  # type: ignore[func-returns-value]
    second = load_training_data(host, folder, scalings=path)
    assert not calls
    for one, other in zip(first.train, second.train, strict=True):
        np.testing.assert_array_equal(np.asarray(one.density), np.asarray(other.density))
    os.utime(first.train[1].tomogram.volume_path, ns=(1, 1))
    load_training_data(host, folder, scalings=path)
    assert calls == [first.train[1].name]
    path.write_text("[spoilt")
    load_training_data(host, folder, scalings=path)
    assert len(calls) == 4


@pytest.mark.parametrize("idle", [True, False])
def test_waiting_counts_where_the_devices_had_nothing_left_to_do(idle: bool) -> None:
    last = SimpleNamespace(inner_loss=SimpleNamespace(is_ready=lambda: idle))
    log = SilentLog()

    def slow() -> Iterator[tuple[int, int]]:
        time.sleep(0.01)
        yield 1, 2

    assert next_batch(slow(), last, log) == (1, 2)  # type: ignore[arg-type]
    assert (log.waited_s > 0) == idle
    assert log.wait_share() is None
    log.pace(1)
    assert (log.wait_share() or 0.0) <= 1.0
    assert bool(log.wait_share()) == idle


def test_tomograms_live_on_the_devices_where_they_fit(config: Config) -> None:
    def auto(limit_gib: float | None) -> bool:
        settings = replace(config, parallel=replace(config.parallel, memory_limit_gib=limit_gib))
        return lives_on_devices(settings, {"train": [(200, 512, 512)] * 10, "meta": [(200, 512, 512)]})

    assert auto(8.0)  # 11 times 52 million voxels of five bytes are 2.7 GiB
    assert not auto(2.5)
    told = replace(config, patches=replace(config.patches, input="device"))
    assert lives_on_devices(told, {"train": [(10_000, 10_000, 10_000)]})


def test_labels_are_drawn_where_whole_maps_are_more_work(config: Config) -> None:
    short = replace(config, train=replace(config.train, steps=1, batch_size=1, inner_steps=1))
    long = replace(config, train=replace(config.train, steps=10_000))
    assert callable(loaded(short).label_maps["train", "train_000"])
    assert isinstance(loaded(long).label_maps["train", "train_000"], np.ndarray)
